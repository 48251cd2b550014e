"""The location mask beside the latent: 0 inside a subject's box, 1 outside (arXiv:2307.11410, section 4.3).

The fifth channel of the input convolution is linear in it, so that

    conv5([latent ; mask]) = conv4(latent) + conv1(mask),

and a base with four channels takes the mask as an addition to its first convolution's output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import check_shape


def location_mask(boxes: Tensor, present: Tensor, height: int, width: int, size: tuple[int, int]) -> Tensor:
    """Draw the boxes at the picture's size and take the latent's cells from it, nearest neighbour as published.

    Args:
        boxes: (B, S, 4) fractions, x0 y0 x1 y1.
        present: (B, S) bool.
        height, width: of the picture in pixels.
        size: height and width of the latent in cells.

    Returns:
        (B, 1, h, w) float32: 0 where a subject's box is, 1 elsewhere.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    sizes = check_shape(boxes, "B S 4", "boxes")
    check_shape(present, "B S", "subjects present", B=sizes["B"], S=sizes["S"])
    edges = boxes.double() * torch.tensor([width, height, width, height], device=boxes.device)
    x0, y0, x1, y1 = (edge[..., None] for edge in edges.round().unbind(-1))  # (B, S, 1)
    columns, rows = (torch.arange(length, device=boxes.device) for length in (width, height))
    across, down = (columns >= x0) & (columns < x1), (rows >= y0) & (rows < y1)  # (B, S, W), (B, S, H)
    inside = down[..., :, None] & across[..., None, :] & present.bool()[..., None, None]
    outside = (~inside.any(dim=1, keepdim=True)).float()  # (B, 1, H, W)
    return F.interpolate(outside, size=size, mode="nearest")


def mask_addition(mask: Tensor, weight: Tensor) -> Tensor:
    """Convolve the mask with the fifth input channel's weights.

    Args:
        mask: (B, 1, h, w).
        weight: (C, 1, 3, 3), ``conv_in.weight[:, 4:]``.

    Returns:
        (B, C, h, w), to be added to the output of the four-channel convolution.
    """
    return F.conv2d(mask.to(weight.dtype), weight, padding=1)
