"""Pictures between the renderer, uint8 with channels last, and the models, floats with channels first."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(pictures: np.ndarray | Sequence[np.ndarray], device: torch.device | str = "cpu") -> Tensor:
    """Convert uint8 (B, H, W, 3), or a list of (H, W, 3), to float32 (B, 3, H, W) in [0, 1] on the device."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 255


def picture_tensor(image: Image.Image, side: int) -> Tensor:
    """Convert a picture of any size to (1, 3, side, side) float32 in [0, 1]."""
    return to_tensor([np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))])


def to_uint8(images: Tensor) -> list[np.ndarray]:
    """Convert back: (B, 3, H, W), clipped to [0, 1], to uint8 (H, W, 3) arrays."""
    return list((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())
