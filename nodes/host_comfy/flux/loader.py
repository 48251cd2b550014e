"""DreamO's files onto clones of a Flux MODEL and CLIP."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.lora
import comfy.utils
import torch

from ....core.lora_keys import bare_name, first
from ....core.routing.files import load_flux_lora, load_tables
from ....core.routing.token_layout import DreamOEmbeddings
from ..weight_adapters import with_magnitudes
from .placeholders import with_placeholders
from .wrapper import check_flux

log = logging.getLogger(__name__)

TABLES_KEY = "relate_dreamo"


def attach_dreamo(model, clip, embeddings: str, loras: list[tuple[str, float]]) -> tuple:
    """Clones of MODEL and CLIP that know DreamO: LoRAs as weight patches, tables, placeholders.

    Args:
        embeddings: path of the tables.
        loras: path and strength of each, in the published order; strength 0 is left out.

    Raises:
        ValueError: not Flux, files that do not fit; all that is wrong with the LoRAs in one error.
    """
    check_flux(model)
    tables = load_tables(embeddings)
    width = model.model.diffusion_model.params.hidden_size
    if tables.task.shape[1] != width:
        raise ValueError(
            f"embeddings: {Path(embeddings).name} was made for a model of width {tables.task.shape[1]}, "
            f"the model has {width}. DreamO belongs to FLUX.1-dev."
        )
    clone = model.clone()
    faults = []
    for path, strength in loras:
        if strength == 0:
            continue
        try:
            _patch(clone, path, strength)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError(" ".join(faults))
    clone.set_attachments(TABLES_KEY, tables)
    if tables.words is None:
        log.warning("Relate: %s has no T5 table; placeholders such as [ref#1] stay plain text.", Path(embeddings).name)
        return clone, clip
    return clone, with_placeholders(clip, tables.words)


def _patch(clone, path: str, strength: float) -> None:
    """Add one LoRA through ComfyUI's own loader.

    Raises:
        ValueError: fewer modules found their weights than the file has.
    """
    lora, file = load_flux_lora(path), Path(path).name
    names = comfy.lora.model_lora_keys_unet(clone.model, {})
    called = {module: _known_name(module, names) for module in lora.modules}
    lost = sorted(module for module, name in called.items() if name is None)
    known = {}
    for key, tensor in lora.state.items():
        module, name = next(((part, called[part]) for part in _modules_of(key) if called.get(part)), ("", None))
        if name is not None:
            known[name + key[len(module) :]] = tensor
    magnitudes = {called[module]: magnitude for module, magnitude in lora.magnitudes.items() if called.get(module)}
    _check_shapes(clone, names, known, magnitudes, file)
    patches = comfy.lora.load_lora(known, names)
    with_magnitudes(patches, {names[module]: magnitude for module, magnitude in magnitudes.items()})
    clone.add_patches(patches, strength)
    if lost:
        raise ValueError(
            f"{file}: {len(called) - len(lost)} of {len(called)} pairs found their weights in this model; "
            f"it has no {first(lost)}. DreamO's LoRAs belong to FLUX.1-dev."
        )
    log.info(
        "Relate: %s, %d of %d pairs (%s layout%s), strength %g",
        file,
        lora.pairs,
        lora.pairs,
        lora.layout,
        f", alpha from {lora.alpha_source}" if lora.alpha_source else "",
        strength,
    )
    for remark in lora.remarks():
        log.warning("Relate: %s: %s", file, remark)


def _known_name(module: str, names: dict) -> str | None:
    """Return a module under one of the names that ComfyUI's loader has for it."""
    bare = bare_name(module)
    return next(
        (name for name in (module, bare, f"transformer.{bare}", f"diffusion_model.{bare}") if name in names), None
    )


def _modules_of(key: str) -> list[str]:
    """Return what stands before each dot of a key, the longest first: one of them is its module."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _check_shapes(clone, names: dict, state: dict, magnitudes: dict, file: str) -> None:
    """Parts must fit their weights and each other; ComfyUI only finds out, and only warns, when it merges."""
    faults = [
        f"{key} is no number"
        for key, alpha in state.items()
        if key.endswith(".alpha") and not (alpha.numel() == 1 and bool(torch.isfinite(alpha).all()))
    ]
    for key, up in state.items():
        if not key.endswith(".lora_up.weight"):
            continue
        module = key.removesuffix(".lora_up.weight")
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
        raise ValueError(
            f"{file}: {len(faults)} pairs do not fit this model: {first(faults)}. DreamO's LoRAs belong to FLUX.1-dev."
        )


def linear_shape(model, name: str) -> tuple[int, int]:
    """(out, in) of a linear layer's weight as it computes; packed weights (nvfp4, int4, GGUF) are stored in another."""
    layer = comfy.utils.get_attr(model, name.removesuffix(".weight"))
    out, into = getattr(layer, "out_features", None), getattr(layer, "in_features", None)
    return (out, into) if out and into else tuple(layer.weight.shape[:2])


def tables_of(model) -> DreamOEmbeddings:
    """Return the tables that Load DreamO put onto a MODEL.

    Raises:
        ValueError: none there.
    """
    check_flux(model)
    tables = model.get_attachment(TABLES_KEY)
    if tables is None:
        raise ValueError(
            "model: expected one from Load DreamO, which brings the embeddings for reference images; this "
            "MODEL has none. Put Load DreamO between the model loader and this node."
        )
    return tables
