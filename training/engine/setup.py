"""A validated run loaded: what the training loop takes, of any architecture; here SDXL's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from core.relation.lora import RelationCard

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
        samples: makes the sample pictures; None where none are to be drawn.
        write: writes the promised file, and a second one for kohya if asked; returns what readers found in it.
        placed: whether the objective's weights are where they belong already.
    """

    objective: nn.Module
    parameters: dict[str, nn.Parameter]
    crops: Any
    identity: IdentityBatch | None
    samples: Callable[[], SamplePictures | None]
    write: Callable[[bool, SamplePictures | None], str]
    placed: bool = False


def set_up(spec: RunSpec, accelerator: Accelerator, speak) -> Setup:
    """Encode, load the UNet, attach the LoRA and the identity branch."""
    config, device = spec.config, accelerator.device
    with accelerator.main_process_first():
        crops = encode(spec.triplets, config, spec.frozen, device, spec.dtype, speak)
        negative = encode_negative(config, spec.frozen, device, spec.dtype) if config.samples.every else None
    speak(f"loading the UNet in {str(spec.dtype).removeprefix('torch.')}")
    unet = spec.frozen.base.unet(spec.dtype).to(device)
    objective = relation.attach(unet, spec.schedule, config, spec.frozen.identity_config is not None)
    identity = project_identity(spec, crops, unet)
    return Setup(
        objective,
        relation_parameters(unet),
        crops,
        identity,
        lambda: sample_pictures(spec, objective, crops, identity, negative),
        lambda kohya, samples: write_file(spec, objective, samples),
    )


def project_identity(spec: RunSpec, crops: EncodedTriplets, unet: nn.Module) -> IdentityBatch | None:
    """Project every crop's identity tokens to keys and values at every site, once; the projections are not kept.

    The batch stays in the computer's memory, as the crops do: on SDXL in half precision 10 to 16 MB of each.
    """
    if spec.frozen.identity_config is None:
        return None
    model = spec.frozen.identity()
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
    return batch.to(torch.device("cpu"), spec.dtype)


def relation_card(spec: AnySpec, base: str, losses: dict[str, float], samples: SamplePictures | None) -> RelationCard:
    """Collect what a run's file says of itself.

    Args:
        spec: the run.
        base: as relation files name it.
        losses: weight of each.
        samples: the first picture of the last step is for LoRA managers.
    """
    config = spec.config
    return RelationCard(
        base=base,
        relation=config.relation,
        example_prompt=spec.triplets[0].prompt,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        steps=config.train.steps,
        losses=losses,
        dataset_sha256=spec.dataset,
        created_with="Relate, python -m training.finetune",
        data_licences=tuple(filter(None, (triplet.licence for triplet in spec.triplets))),
        thumbnail=samples.thumbnail(config.train.steps) if samples else "",
    )


def write_file(spec: RunSpec, objective: relation.RelationObjective, samples: SamplePictures | None) -> str:
    """Write the promised file, read back before it appears."""
    card = relation_card(spec, spec.frozen.base.name, objective.weights, samples)
    return relation.export(objective, spec.config.lora_file, card)
