"""A subject's reference as the image encoder sees it: cut out on white, padded to a square (arXiv:2307.11410, A.2).

The released test script crops instead of padding, which loses the ends of long subjects.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..identity.image_prep import BACKGROUND, cut_out, normalise_pixels


def pad_to_square(photograph: Tensor) -> Tensor:
    """(3, h, w) to (3, s, s) with white on both sides of the shorter axis, so that nothing is cut off."""
    height, width = photograph.shape[-2:]
    across, down = max(0, height - width), max(0, width - height)
    return F.pad(photograph, (across // 2, across - across // 2, down // 2, down - down // 2), value=BACKGROUND)


def reference_square(photograph: Tensor, mask: Tensor | None) -> Tensor:
    """Cut a subject out and pad the piece to a square.

    Args:
        photograph: (3, H, W) in [0, 1].
        mask: (H, W) in [0, 1], 1 where the subject is; None keeps everything.

    Returns:
        (3, s, s) in [0, 1].
    """
    (piece,) = cut_out(photograph[None], None if mask is None else mask[None])
    return pad_to_square(piece)


def encoder_pixels(square: Tensor, size: int) -> Tensor:
    """(3, s, s) in [0, 1] to (3, size, size) normalised for CLIP, as ComfyUI prepares images for it."""
    resized = F.interpolate(square[None].float(), size=(size, size), mode="bicubic", antialias=True)
    return normalise_pixels((resized.clamp(0, 1) * 255).round() / 255)[0]


def null_boxes(boxes: Tensor, coordinates: bool) -> Tensor:
    """Choose the boxes for object tokens: all zero, a constant, where an adapter knows no coordinates."""
    return boxes if coordinates else torch.zeros_like(boxes)
