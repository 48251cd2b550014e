"""A validated run loaded: what the training loop takes, of any architecture; here SDXL's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from core.relation.lora import RelationCard

from ..config import Config
from ..data.encoded_triplets import EncodedTriplets
from ..data.encoding_cache import encode, encode_negative
from ..host_diffusers import IdentityBatch, identity_batch, relation_parameters
from . import objective as relation
from .run_spec import AnySpec, RunSpec
from .validation import SamplePictures, sample_pictures


@dataclass(frozen=True, eq=False)
class Setup:
    """What the loop trains, of any architecture.

    Attributes:
        objective: takes crops, identity and a draw's inputs; returns losses.
        parameters: what is trained, by name.
        crops: on the CPU; ``identity`` of them, or None.
        samples: of the crops, the pictures on the way.
        write: the promised file, of whether a second one is wanted and of the samples; returns what readers found.
        placed: whether the objective's weights are where they belong already.
    """

    objective: nn.Module
    parameters: dict[str, nn.Parameter]
    crops: Any
    identity: IdentityBatch | None
    samples: Callable[[Any], SamplePictures | None]
    write: Callable[[bool, SamplePictures | None], str]
    placed: bool = False


def set_up(recipe: RunSpec, accelerator: Accelerator, speak) -> Setup:
    """Encode, load the UNet, attach the LoRA and the identity branch."""
    config, device = recipe.config, accelerator.device
    with accelerator.main_process_first():
        crops = encode(recipe.triplets, config, recipe.frozen, device, recipe.dtype, speak)
        negative = encode_negative(config, recipe.frozen, device, recipe.dtype) if config.samples.every else None
    speak(f"loading the UNet in {str(recipe.dtype).removeprefix('torch.')}")
    unet = recipe.frozen.base.unet(recipe.dtype).to(device)
    objective = relation.attach(unet, recipe.schedule, config, recipe.frozen.identity_config is not None)
    identity = project_identity(recipe, crops, unet, device)
    return Setup(
        objective,
        relation_parameters(unet),
        crops,
        identity,
        lambda here: sample_pictures(recipe, objective, here, identity, negative),
        lambda kohya, samples: write_file(recipe, objective, samples),
    )


def project_identity(
    recipe: RunSpec, crops: EncodedTriplets, unet: nn.Module, device: torch.device
) -> IdentityBatch | None:
    """Identity tokens of every crop as keys and values at every site, once; the projections are not kept."""
    if recipe.frozen.identity_config is None:
        return None
    model = recipe.frozen.identity()
    with torch.no_grad():
        batch = identity_batch(
            model.ms_adapter,
            crops.identity,
            model.dummy_image_tokens[0],
            crops.boxes,
            crops.present,
            tuple(crops.latents.shape[-2:]),
            unet,
        )
    return batch.to(device, recipe.dtype)


def thumbnail_of(recipe: AnySpec, samples: SamplePictures | None) -> str:
    """Take the first picture of the last step, for LoRA managers; empty where none was drawn."""
    return samples.thumbnail(recipe.config.train.steps) if samples else ""


def write_file(recipe: RunSpec, objective: relation.RelationObjective, samples: SamplePictures | None) -> str:
    """Write the promised file, read back before anyone is told of it."""
    config: Config = recipe.config
    card = RelationCard(
        base=recipe.frozen.base.name,
        relation=config.relation,
        example_prompt=recipe.triplets[0].prompt,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        steps=config.train.steps,
        losses=objective.weights,
        dataset_sha256=recipe.dataset,
        created_with="Relate, python -m training.finetune",
        data_licences=tuple(filter(None, (triplet.licence for triplet in recipe.triplets))),
        thumbnail=thumbnail_of(recipe, samples),
    )
    return relation.export(objective, config.lora_file, card)
