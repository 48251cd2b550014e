"""Load a relation LoRA onto a MODEL of whichever family it is, and log what was applied in one line."""

from __future__ import annotations

import logging

from ...core.relation.flux_relation import load_flux_relation
from ...core.relation.lora import load_relation
from ..host_comfy.flux import relation as flux
from ..host_comfy.sdxl import models
from ..host_comfy.sdxl import relation as sdxl

log = logging.getLogger(__name__)


def load_onto(model, path: str, name: str, strength: float) -> tuple:
    """Clone the MODEL with the relation; return the clone and the words that the relation was trained with.

    Args:
        name: of the file, for messages.

    Raises:
        ValueError: neither SDXL nor Flux; a file that cannot be read, or that was made for another base.
    """
    shape = flux.flux_shape(model)
    if shape is not None:
        relation = load_flux_relation(path, shape)
        clone, remarks = flux.attach_relation(model, relation, strength, name), relation.lora.remarks()
    else:
        expected = "an SDXL or a Flux model (FLUX.1, Kontext, FLUX.2, Klein)"
        relation = load_relation(path, models.unet_layout(model, expected))
        clone, remarks = sdxl.attach_relation(model, relation, strength), relation.remarks()
    log.info(
        "Relate: relation %s, %s%s", name, relation.report(), f", '{relation.relation}'" if relation.relation else ""
    )
    for remark in remarks:
        log.warning("Relate: %s: %s", name, remark)
    return clone, relation.relation
