"""A relation LoRA onto a clone of a Flux-class MODEL."""

from __future__ import annotations

from ....core.relation.flux_bases import FluxShape
from ....core.relation.flux_relation import FluxRelation
from .lora_patches import add_flux_lora

_GENERATIONS = {"flux": 1, "flux2": 2}  # by ComfyUI's name of the network


def flux_shape(model) -> FluxShape | None:
    """Return the shape of a MODEL's transformer; None if it is no Flux."""
    config = model.model.model_config.unet_config
    generation = _GENERATIONS.get(config.get("image_model"))
    if generation is None:
        return None
    return FluxShape(generation, config["hidden_size"], config["depth"], config["depth_single_blocks"])


def attach_relation(model, relation: FluxRelation, strength: float, file: str):
    """Clone the MODEL and add the relation as weight patches.

    Args:
        file: its name, for messages.

    Raises:
        ValueError: modules or sizes that this model has not.
    """
    clone = model.clone()
    shape, base = flux_shape(model), relation.base
    advice = f"The file was made for {base.title}." if base else "The file does not say which model it was made for."
    advice += f" The model is {shape.title()}." if shape else ""
    if strength != 0:
        add_flux_lora(clone, relation.lora, strength, file, advice)
    return clone
