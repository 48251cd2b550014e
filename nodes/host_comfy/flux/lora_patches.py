"""LoRAs of Flux-class models as weight patches of a clone, through ComfyUI's own LoRA loader.

ComfyUI's key map says which weight, and which of its rows, each name means; it has some spellings of a module and not
others. Here a module is looked up without its prefix and with underscores, so that every spelling finds the same rows.
"""

from __future__ import annotations

import logging
import re

import comfy.lora
import comfy.utils
import torch

from ....core.flux_lora_keys import FluxLoRA
from ....core.lora_keys import bare_name, first_names
from ..weight_adapters import with_magnitudes

log = logging.getLogger(__name__)

_PAIR = ".lora_up.weight"
_SHARED = re.compile(r"(_stream_modulation(?:_img|_txt)?)_linear$")


def add_flux_lora(clone, lora: FluxLoRA, strength: float, file: str, advice: str) -> None:
    """Add a LoRA to a clone of a MODEL.

    Args:
        clone: is changed.
        file: its name, for messages.
        advice: a sentence that ends them, e.g. which model the file belongs to.

    Raises:
        ValueError: modules that this model has not, or that the file has twice; parts of other sizes.
    """
    # the file's modules under ComfyUI's names
    names = comfy.lora.model_lora_keys_unet(clone.model, {})
    comfy_names = _match_modules(lora.modules, names, file, advice)
    state, alone = {}, []
    for key, tensor in lora.state.items():
        module = next((part for part in _modules_of(key) if part in comfy_names), None)
        if module is None:
            alone.append(key)
        else:
            state[comfy_names[module] + key[len(module) :]] = tensor
    if alone:
        log.warning("Relate: %s: %d tensors change no module by themselves: %s", file, len(alone), first_names(alone))
    magnitudes = {
        comfy_names[module]: magnitude for module, magnitude in lora.magnitudes.items() if module in comfy_names
    }

    # what fits becomes weight patches
    _check_shapes(clone, names, state, magnitudes, file, advice)
    patches = comfy.lora.load_lora(state, names)
    with_magnitudes(patches, {names[module]: magnitude for module, magnitude in magnitudes.items()})
    clone.add_patches(patches, strength)


def _plain(module: str) -> str:
    """Spell a module without prefix, dots as underscores; diffusers calls Flux.2's shared modulations ``.linear``."""
    return _SHARED.sub(r"\1_lin", bare_name(module).replace(".", "_"))


def _match_modules(modules: set[str], names: dict, file: str, advice: str) -> dict[str, str]:
    """Find ComfyUI's name of each module; every module must have its own rows of a weight.

    Raises:
        ValueError: some have none, or two of the file are the same.
    """
    by_plain_name = {_plain(name): name for name in names}  # the last of several that mean the same rows
    lost = sorted(module for module in modules if _plain(module) not in by_plain_name)
    if lost:
        raise ValueError(
            f"{file}: {len(modules) - len(lost)} of {len(modules)} pairs found their weights in this model; "
            f"it has no {first_names(lost)}. {advice}"
        )
    comfy_names = {module: by_plain_name[_plain(module)] for module in modules}
    targets: dict = {}
    for module, name in comfy_names.items():
        targets.setdefault(names[name], []).append(module)
    double = [" and ".join(sorted(modules)) for modules in targets.values() if len(modules) > 1]
    if double:
        raise ValueError(
            f"{file}: {len(double)} modules are in it twice, in two spellings: {first_names(sorted(double))}."
        )
    return comfy_names


def _modules_of(key: str) -> list[str]:
    """List the prefixes of a key up to each dot, the longest first: one of them is its module."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _check_shapes(clone, names: dict, state: dict, magnitudes: dict, file: str, advice: str) -> None:
    """Parts must fit their weights and each other; ComfyUI only finds out, and only warns, when it merges."""
    faults = [
        f"{key} is no number"
        for key, alpha in state.items()
        if key.endswith(".alpha") and not (alpha.numel() == 1 and bool(torch.isfinite(alpha).all()))
    ]
    for key, up in state.items():
        if not key.endswith(_PAIR):
            continue
        module = key.removesuffix(_PAIR)
        down, target = state[f"{module}.lora_down.weight"], names[module]
        name, part = (target, None) if isinstance(target, str) else (target[0], target[1])
        out, into = linear_shape(clone.model, name)
        out = out if part is None else part[2]
        flat = up.ndim == down.ndim == 2
        if not flat or (up.shape[0], down.shape[1]) != (out, into) or up.shape[1] != down.shape[0]:
            faults.append(f"{module} is {tuple(up.shape)} x {tuple(down.shape)}, expected ({out}, r) x (r, {into})")
        elif module in magnitudes and magnitudes[module].numel() != out:
            faults.append(f"{module} has {magnitudes[module].numel()} magnitudes, expected {out}")
    if faults:
        raise ValueError(f"{file}: {len(faults)} pairs do not fit this model: {first_names(faults)}. {advice}")


def linear_shape(model, name: str) -> tuple[int, int]:
    """(out, in) of a linear layer's weight as it computes; packed weights (nvfp4, int4, GGUF) are stored in another."""
    layer = comfy.utils.get_attr(model, name.removesuffix(".weight"))
    out, into = getattr(layer, "out_features", None), getattr(layer, "in_features", None)
    return (out, into) if out and into else tuple(layer.weight.shape[:2])
