"""Pictures between the renderer, uint8 with channels last, and the models, floats with channels first."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_tensor(pictures: np.ndarray | Sequence[np.ndarray], device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8, or a list of (H, W, 3), to (B, 3, H, W) float32 in [0, 1]; bytes travel, not floats."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 255


def to_uint8(images: Tensor) -> list[np.ndarray]:
    """The inverse: (B, 3, H, W), clipped to [0, 1], to uint8 (H, W, 3) arrays."""
    return list((images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())
