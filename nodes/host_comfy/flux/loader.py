"""DreamO's files onto clones of a Flux MODEL and CLIP."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.lora

from ....core.routing.files import load_flux_lora, load_tables
from ....core.routing.token_layout import Tables
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
        raise ValueError(f"embeddings: {Path(embeddings).name} was made for a model of width {tables.task.shape[1]}, "
                         f"the model has {width}. DreamO belongs to FLUX.1-dev.")
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
        ValueError: fewer pairs found their weights than the file has.
    """
    lora = load_flux_lora(path)
    names = comfy.lora.model_lora_keys_unet(clone.model, {})
    known = {key: tensor for key, tensor in lora.state.items() if key.rsplit(".lora_", 1)[0].removesuffix(".alpha")
             in names}
    lost = sorted({key.rsplit(".lora_", 1)[0] for key in lora.state if key not in known})
    _check_shapes(clone, names, known, Path(path).name)
    patches = comfy.lora.load_lora(known, names)
    clone.add_patches(patches, strength)
    if len(patches) != lora.pairs or lost:
        raise ValueError(f"{Path(path).name}: {len(patches)} of {lora.pairs} pairs found their weights in this model; "
                         f"it has no {', '.join(lost[:3])}{' and more' if len(lost) > 3 else ''}. DreamO's LoRAs "
                         "belong to FLUX.1-dev.")
    log.info("Relate: %s, %d of %d pairs (%s layout), strength %g", Path(path).name, len(patches), lora.pairs,
             lora.layout, strength)
    if lora.left_out:
        log.warning("Relate: %d tensors of %s are no LoRA of Flux and were left out: %s", len(lora.left_out),
                    Path(path).name, ", ".join(lora.left_out[:3]))


def _check_shapes(clone, names: dict, state: dict, file: str) -> None:
    """Halves must fit their weights and each other; ComfyUI only finds out, and only warns, when it merges."""
    weights = clone.model.state_dict()
    faults = []
    for key, up in state.items():
        if not key.endswith(".lora_up.weight"):
            continue
        module = key.removesuffix(".lora_up.weight")
        down, target = state[f"{module}.lora_down.weight"], names[module]
        name, part = (target, None) if isinstance(target, str) else (target[0], target[1])
        out, into = weights[name].shape[:2] if part is None else (part[2], weights[name].shape[1])
        if (up.shape[0], down.shape[-1]) != (out, into) or up.shape[1] != down.shape[0]:
            faults.append(f"{module} is {tuple(up.shape)} x {tuple(down.shape)}, expected ({out}, r) x (r, {into})")
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{file}: {len(faults)} pairs do not fit this model: {'; '.join(faults[:3])}{more}. "
                         "DreamO's LoRAs belong to FLUX.1-dev.")


def tables_of(model) -> Tables:
    """The tables that Load DreamO put onto a MODEL.

    Raises:
        ValueError: none there.
    """
    check_flux(model)
    tables = model.get_attachment(TABLES_KEY)
    if tables is None:
        raise ValueError("model: expected one from Load DreamO, which brings the embeddings for reference images; this "
                         "MODEL has none. Put Load DreamO between the model loader and this node.")
    return tables
