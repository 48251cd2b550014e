"""DreamO's files onto clones of a Flux MODEL and CLIP."""

from __future__ import annotations

import logging
from pathlib import Path

from ....core.flux_lora_keys import load_flux_lora
from ....core.routing.files import load_tables
from ....core.routing.token_layout import DreamOEmbeddings
from .lora_patches import add_flux_lora
from .placeholders import with_placeholders
from .wrapper import check_flux

log = logging.getLogger(__name__)

TABLES_KEY = "relate_dreamo"


def attach_dreamo(model, clip, embeddings: str, loras: list[tuple[str, float]]) -> tuple:
    """Clone MODEL and CLIP and add DreamO to them: LoRAs as weight patches, tables, placeholders.

    Args:
        embeddings: path of the tables.
        loras: path and strength of each, in the published order; strength 0 is left out.

    Raises:
        ValueError: not Flux, files that do not fit; all faults of the LoRAs in one error.
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
    add_flux_lora(clone, lora, strength, file, "DreamO's LoRAs belong to FLUX.1-dev.")
    log.info(
        "Relate: %s, %d of %d pairs (%s layout%s), strength %g",
        file,
        lora.pairs,
        lora.pairs,
        lora.key_format,
        f", alpha from {lora.alpha_source}" if lora.alpha_source else "",
        strength,
    )
    for remark in lora.remarks():
        log.warning("Relate: %s: %s", file, remark)


def tables_of(model) -> DreamOEmbeddings:
    """Get the tables that Load DreamO put onto a MODEL.

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
