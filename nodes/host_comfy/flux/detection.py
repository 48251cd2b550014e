"""ComfyUI's config of a diffusion model, taken from its own detection: every version asks for other fields."""

from __future__ import annotations

import comfy.model_detection
from torch import Tensor


def detect_config(state: dict[str, Tensor], sizes: dict) -> dict:
    """Read the config off the weights with ComfyUI's detection, and correct the sizes that it takes for granted.

    Detection counts blocks and reads most widths, but presumes what every published file of a family shares (Flux's
    head count and axes, whole channel multipliers); small models differ in those.

    Args:
        state: weights in ComfyUI's own names, without a prefix.
        sizes: the fields whose values the caller knows better.

    Raises:
        ValueError: detection does not know such weights, or has no field of one of these names.
    """
    config = comfy.model_detection.detect_unet_config(state, "")
    if config is None:
        raise ValueError(
            f"ComfyUI's detection does not know a model of these {len(state)} tensors (the first is "
            f"{next(iter(state), 'none')})."
        )
    if unknown := sizes.keys() - config.keys():
        raise ValueError(f"ComfyUI's detection has no {', '.join(sorted(unknown))}; it has {', '.join(config)}.")
    return config | sizes
