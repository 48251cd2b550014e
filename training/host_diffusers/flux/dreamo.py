"""DreamO's LoRAs in the weights of a base: all deltas are added up before anything is rounded, as ComfyUI does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from core.flux_lora_keys import FluxLoRA, load_flux_lora
from core.routing.files import ADAPTERS

from .single_file import diffusers_modules, split_rows


def strengths_of(paths: Sequence[Path], strengths: Sequence[float]) -> list[float]:
    """Take the user's strength of each file, else the published one of a file of this name, else 1."""
    published = {name: adapter.strength for adapter in ADAPTERS for name in adapter.files}
    return list(strengths) or [published.get(path.name, 1.0) for path in paths]


def merge_loras(transformer: nn.Module, paths: Sequence[Path], strengths: Sequence[float]) -> int:
    """Add LoRAs of FLUX.1 to a transformer's weights for good; returns how many layers changed.

    Raises:
        ValueError: no LoRA of FLUX.1, one with more than pairs, or one that does not fit this transformer.
    """
    total: dict[str, Tensor] = {}
    for path, strength in zip(paths, strengths, strict=True):
        lora = load_flux_lora(path)
        if lora.magnitudes or any(not key.endswith((".weight", ".alpha")) for key in lora.state):
            raise ValueError(f"{path.name}: it holds more than pairs (DoRA, LoHa ...); only plain LoRAs are merged")
        for module, delta in _deltas(lora):
            total[module] = total.get(module, 0) + strength * delta
    wrong = [module for module, delta in total.items() if _shape(transformer, module) != tuple(delta.shape)]
    if wrong:
        raise ValueError(
            f"{', '.join(path.name for path in paths)}: {len(wrong)} of {len(total)} layers do not fit this base, "
            f"the first {wrong[0]} {tuple(total[wrong[0]].shape)}. They are LoRAs of another model."
        )
    with torch.no_grad():
        for module, delta in total.items():
            weight = transformer.get_submodule(module).weight
            weight.copy_(weight.float() + delta.to(weight.device))
    return len(total)


def _shape(transformer: nn.Module, module: str) -> tuple[int, ...]:
    try:
        return tuple(transformer.get_submodule(module).weight.shape)
    except AttributeError:
        return ()


def _deltas(lora: FluxLoRA) -> Iterator[tuple[str, Tensor]]:
    """Yield (layer of diffusers, delta) of every pair, fused ones in their parts."""
    for module in sorted(lora.modules):
        down, up = (lora.state[f"{module}.lora_{half}.weight"].float() for half in ("down", "up"))
        alpha = float(lora.state.get(f"{module}.alpha", down.shape[0]))
        name = module.removeprefix("diffusion_model.").removeprefix("transformer.")
        targets = (name,)
        if name.startswith(("double_blocks.", "single_blocks.")):
            targets = diffusers_modules(name, 1)
        for target, rows in zip(targets, split_rows(alpha / down.shape[0] * up, name, len(targets))):
            yield target, rows @ down
