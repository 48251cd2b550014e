"""A validated run on a Flux-class model, encoded and loaded: what the training loop takes, and the file at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from core.checkpoint import save
from core.relation.flux_lora import load_flux_pairs, save_flux_relation, save_kohya_relation
from core.relation.lora import RelationCard
from core.routing.files import TABLES

from ...common.errors import UserErrors
from ...data.flux_encoding import encode_flux, encode_negative_flux
from ...data.frozen_encoding import free_memory
from ...host_diffusers.flux.lora import attach_lora, pairs_of, read_with_diffusers
from ...host_diffusers.flux.network import FluxNetwork
from ...host_diffusers.flux.stored import store_blocks
from ..setup import Setup, relation_card
from ..validation import SamplePictures
from .objective import FluxObjective
from .samples import FluxSamplePictures
from .spec import FluxSpec


def set_up(spec: FluxSpec, accelerator: Accelerator, speak) -> Setup:
    """Encode, load the transformer, attach the LoRA, and place everything as the config says."""
    config, device = spec.config, accelerator.device
    with accelerator.main_process_first():
        crops = encode_flux(spec.folders, config, spec.base, device, spec.dtype, speak)
        draws = bool(config.samples.every)
        negative = encode_negative_flux(config, spec.base, device, spec.dtype) if draws else None
    speak(f"loading the transformer in {str(spec.dtype).removeprefix('torch.')}")
    objective, parameters = load_objective(spec, device)

    def samples() -> FluxSamplePictures | None:
        return FluxSamplePictures.of_run(spec, objective, crops, negative, device) if negative else None

    def write(kohya: bool, pictures: SamplePictures | None) -> str:
        card = relation_card(spec, spec.base.name, objective.weights, pictures)
        card = replace(card, sites=config.lora.sites, reference_method=spec.base.method)
        return export(spec, objective, parameters, card, kohya)

    return Setup(objective, parameters, crops, None, samples, write, placed=True)


def load_objective(spec: FluxSpec, device: torch.device) -> tuple[FluxObjective, dict[str, nn.Parameter]]:
    """Load a run's network with a fresh LoRA, placed as the config says; return what is trained, by name."""
    # 1. the network and its LoRA
    config = spec.config
    nf4 = config.memory.storage == "nf4"
    transformer = spec.base.transformer(spec.dtype, nf4)
    network = FluxNetwork(transformer, spec.base.method, spec.base.tables, spec.dtype)
    generator = torch.Generator().manual_seed(config.train.seed)
    parameters = attach_lora(transformer, config.lora.sites, config.lora.rank, config.lora.alpha, generator)
    if config.lora.tables:
        parameters |= {f"tables.{name}": table.requires_grad_(True) for name, table in network.tables.items()}
    # 2. the weights where the config puts them
    if nf4:  # bitsandbytes has put the frozen weights on the card
        for parameter in parameters.values():
            parameter.data = parameter.data.to(device)
    else:
        memory = config.memory
        store_blocks(transformer, device, spec.dtype, memory.storage == "fp8", memory.stream_blocks, memory.prefetch)
    network.tables.to(device)
    if config.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.train()
    free_memory(device)
    objective = FluxObjective(network, config)
    # several processes keep only what is trained in step: the frozen weights may lie elsewhere
    frozen = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    objective._ddp_params_and_buffers_to_ignore = frozen
    return objective, parameters


def export(
    spec: FluxSpec,
    objective: FluxObjective,
    parameters: dict[str, nn.Parameter],
    card: RelationCard,
    kohya: bool = False,
) -> str:
    """Write the LoRA; nothing appears before our reader and diffusers' have read it, and it appears last.

    Args:
        spec, objective, parameters: of the finished run.
        card: what the file says of itself.
        kohya: write ``<name>_kohya.safetensors`` beside it, fused as kohya's tools have it.

    Returns:
        What the readers found and what else was written, one sentence.

    Raises:
        UserErrors: what was read differs from what was trained; nothing was written.
    """
    config, path = spec.config, spec.folder.result
    lora = {name: each for name, each in parameters.items() if not name.startswith("tables.")}
    pairs = pairs_of(lora, config.lora.alpha)
    report: list[str] = []

    def check(written: Path) -> None:
        read = load_flux_pairs(written)[0]
        equal_count = sum(
            module in read and torch.allclose(read[module].delta(), pair.delta(), rtol=1e-5, atol=1e-8)
            for module, pair in pairs.items()
        )
        diffusers_count = read_with_diffusers(str(written), objective.network.transformer, pairs)
        total = len(pairs)
        report.append(f"read back: {equal_count} of {total} pairs; diffusers reads {diffusers_count} of {total} pairs")
        if equal_count != total or diffusers_count != total:
            raise UserErrors(
                f"{path}: what was read back is not what was trained ({report[0]}). Nothing was written; the last "
                "checkpoint is whole."
            )
        if config.lora.tables:
            _write_tables(spec, objective, path.with_name(f"{path.stem}_embedding.safetensors"))
            report.append(f"wrote {path.stem}_embedding.safetensors")
        if kohya:
            save_kohya_relation(path.with_name(f"{path.stem}_kohya.safetensors"), pairs, card)
            report.append(f"wrote {path.stem}_kohya.safetensors")

    save_flux_relation(path, pairs, card, check)
    return "; ".join(report)


def _write_tables(spec: FluxSpec, objective: FluxObjective, path: Path) -> None:
    """Write DreamO's tables as they were trained, with the words that were not."""
    trained, originals = objective.network.tables, spec.base.tables
    assert originals is not None, "tables are trained from tables"
    tensors = dict(zip(TABLES, (trained["task"].detach().cpu(), trained["index"].detach().cpu())))
    words = {TABLES[2]: originals.words} if originals.words is not None else {}
    save(path, tensors | words, {"base": spec.base.name})
