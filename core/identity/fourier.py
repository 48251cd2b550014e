"""Boxes as sines and cosines (MS-Diffusion arXiv:2406.07209, after GLIGEN arXiv:2301.07093)."""

import torch
from einops import rearrange
from torch import Tensor

from ..shapes import check_shape

FREQUENCIES = 8
TEMPERATURE = 100.0


def fourier_features(boxes: Tensor) -> Tensor:
    """sin and cos of f_k * x with f_k = 100^(k/F), without a factor pi.

    Computed in float32: in float16 the highest frequency is off by up to 0.04.

    Args:
        boxes: (S, 4) fractions, x0 y0 x1 y1.

    Returns:
        (S, 8F) float32 with F = 8 frequencies as released, laid out [frequency][sin, cos][x0, y0, x1, y1].
    """
    check_shape(boxes, "S 4", "boxes")
    k = torch.arange(FREQUENCIES, device=boxes.device, dtype=torch.float32)
    angles = TEMPERATURE ** (k / FREQUENCIES)[:, None] * boxes.float()[:, None, :]  # (S, F, 4)
    waves = torch.stack((angles.sin(), angles.cos()), dim=2)  # (S, F, 2, 4)
    return rearrange(waves, "s f w x -> s (f w x)")
