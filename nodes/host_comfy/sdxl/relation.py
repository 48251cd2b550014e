"""A relation LoRA onto a clone of a MODEL, through ComfyUI's own LoRA loader."""

from __future__ import annotations

import comfy.lora

from ....core.relation.lora import RelationLoRA, module_name
from ..weight_adapters import with_magnitudes


def attach_relation(model, lora: RelationLoRA, strength: float):
    """Clone the MODEL and add the relation as weight patches.

    Raises:
        ValueError: ComfyUI's key map knows fewer of its places than the file has.
    """
    clone = model.clone()
    if strength == 0:
        return clone
    names = comfy.lora.model_lora_keys_unet(clone.model, {})
    patches = comfy.lora.load_lora(lora.state(), names)
    with_magnitudes(
        patches, {names.get(module_name(*address)): magnitude for address, magnitude in lora.magnitudes.items()}
    )
    applied = set(clone.add_patches(patches, strength))
    patched = [address for address in lora.addresses if names.get(module_name(*address)) in applied]
    if len(patched) != len(lora.addresses) or len(applied) != len(patches):
        raise ValueError(
            f"relation: {len(patched)} of {len(lora.addresses)} modules found their weights in this model; "
            "it was built in a way ComfyUI's LoRA loader does not know."
        )
    return clone
