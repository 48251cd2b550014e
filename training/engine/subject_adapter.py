"""A fresh subject adapter put on a base, and a trained one written down and read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.subject.files import SubjectAdapter, SubjectAdapterConfig, load_subject_adapter, save_subject_adapter

from ..common.errors import UserErrors
from ..config.subject import SubjectConfig
from ..host_diffusers import attach_identity
from ..host_diffusers.fused_text import FusedText
from ..host_diffusers.subject import attach, new_config
from ..host_diffusers.subject_base import SubjectModels
from .subject_objective import SubjectObjective


def sized_adapter(unet: nn.Module, text_widths: tuple[int, int], models: SubjectModels, config: SubjectConfig):
    """Size the adapter for a base, whose UNet may be on the meta device."""
    settings = config.adapter
    sized: SubjectAdapterConfig = new_config(
        unet,
        models.sizes.width,
        models.sizes.embedding,
        text_widths[0],
        models.sizes.patches,
        settings.max_subjects,
        models.base.name,
        settings.blocks,
    )
    return replace(
        sized,
        input_channels=sized.input_channels if settings.location else 0,
        word_2=(models.sizes.embedding, text_widths[1]) if text_widths[1] else None,
        placeholder=settings.placeholder,
        locate_single=settings.locate_single,
        coordinates=settings.coordinates,
        fused_words=settings.fused_words,
    )


def attach_subjects(
    unet: nn.Module, text: FusedText, models: SubjectModels, config: SubjectConfig, dtype: torch.dtype
) -> SubjectObjective:
    """Put a fresh adapter on a UNet; all that is trained becomes float32 with gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        adapter = SubjectAdapter(sized_adapter(unet, models.base.text_widths, models, config))
        _small_words(adapter, text)
    if config.adapter.adapter and config.adapter.gate:
        _open_gates(adapter, config.adapter.gate)
    adapter.to(next(unet.parameters()).device)
    attach(unet, adapter, config.adapter.location)
    if config.loss.attention_weight:
        attach_identity(unet)  # its processors hand queries and keys to the probe
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    objective = SubjectObjective(unet, adapter, text, models.base.schedule, config, dtype)
    objective.requires_grad_(False)
    for parameter in objective.trained().values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return objective


@torch.no_grad()
def _small_words(adapter: SubjectAdapter, text: FusedText) -> None:
    """Begin with words as large as the encoder's own: a default layer's would shift the whole text (SD-R1)."""
    for mlp, encoder in zip((adapter.mlp, getattr(adapter, "mlp_2", None)), text.encoders):
        own = encoder.get_input_embeddings().weight.float()
        mlp.fc2.weight.normal_(0, 2 * float(own.std()) / mlp.fc2.in_features**0.5)
        mlp.fc2.bias.zero_()


@torch.no_grad()
def _open_gates(adapter: SubjectAdapter, gate: float) -> None:
    """Begin with tanh(alpha) = gate and output layers of zeros: the base exactly, as with shut gates.

    Behind a shut gate nothing but the gate itself has a gradient, and it learns as slowly as one number can.
    """
    for fuser in adapter.fusers:
        for alpha in (fuser.alpha_attn, fuser.alpha_dense):
            alpha.fill_(math.atanh(gate))
        for layer in (fuser.attn.to_out[0], fuser.ff.net[2]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def export_adapter(objective: SubjectObjective, path: Path, steps: int, dataset: str) -> str:
    """Write the adapter's file; it appears only after our reader has read all of it again.

    Args:
        objective: trained.
        path: where to.
        steps: of the run.
        dataset: hash of its data.

    Returns:
        What was read back, one sentence.

    Raises:
        UserErrors: what was read differs from what was trained; nothing was written.
    """
    # 1. the tensors, in the precision of the file
    adapter, config = objective.adapter, objective.config
    half = config.output.precision == "float16"
    own = adapter.state_dict()
    whole: dict[str, Tensor] = {key: own[name] for name, key in adapter.file_keys().items()}
    whole |= {key: parameter.detach() for key, parameter in objective.trained().items()}
    state = {key: (tensor.half() if half else tensor.float()).cpu() for key, tensor in whole.items()}
    overflown = [key for key, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if overflown:
        raise UserErrors(
            f"{path}: {len(overflown)} tensors do not fit into {config.output.precision} ({overflown[0]}). Nothing was "
            'written; go on with --resume --set output.precision="float32".'
        )
    # 2. what the file says of itself
    metadata = {
        "steps": str(steps),
        "losses": json.dumps(objective.weights),
        "dataset_sha256": dataset,
        "created_with": "Relate, python -m training.subject",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{adapter.config.base}/subject-adapter",
        "modelspec.title": path.stem,
    }
    report: list[str] = []

    # 3. written under another name, read back, and only then there
    def check(written: Path) -> None:
        again, sizes = load_subject_adapter(written)
        SubjectAdapter(sizes).load({key: tensor.float() for key, tensor in again.items()})
        same = again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
        report.append(
            f"read back: {len(again)} tensors, {len(sizes.blocks)} blocks, up to {sizes.max_subjects} subjects"
        )
        if not same or replace(sizes, blocks=dict(adapter.config.blocks)) != adapter.config:
            raise UserErrors(
                f"{path}: what was read back is not what was trained ({report[0]}). Nothing was written; the last "
                "checkpoint is whole."
            )

    save_subject_adapter(path, state, adapter.config, metadata, check)
    return report[0]
