"""A reference picture as the model sees it: cut out on white, resized by DreamO's rule (arXiv:2504.16915, appendix).

Areas, not sides, are fixed: both sides are scaled so that the picture has resolution^2 pixels, then cut down to
multiples of 16. Shrinking averages areas; enlarging is linear between neighbours, as OpenCV's INTER_AREA does both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..shapes import check_shape

SIDE = 16  # side of a token in pixels
WHITE = 1.0
FACE_MARGIN = 1.1  # side of the square cut around a face, over the larger side of its mask


def published_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Height and width after the published resize; extreme shapes keep at least one token on each side.

    Args:
        height, width: in pixels.
        resolution: root of the area aimed at, in pixels.
    """
    scale = math.sqrt(resolution**2 / (height * width))
    rows, columns = (max(SIDE, int(side * scale) // SIDE * SIDE) for side in (height, width))
    return rows, columns


def on_white(picture: Tensor, mask: Tensor) -> Tensor:
    """(3, H, W) and (H, W) in [0, 1]: what the mask leaves out becomes white."""
    check_shape(mask, "H W", "mask", H=picture.shape[-2], W=picture.shape[-1])
    alpha = mask.clamp(0, 1)
    return picture * alpha + WHITE * (1 - alpha)


def cut_face(picture: Tensor, mask: Tensor) -> Tensor:
    """Cut a square around the mask, white outside the mask and outside the picture.

    Args:
        picture: (3, H, W) in [0, 1].
        mask: (H, W) in [0, 1], with something above 0.5: the face, hair included.

    Returns:
        (3, s, s) in [0, 1].
    """
    picture = on_white(picture, mask)
    rows, columns = ((mask > 0.5).any(dim=axis).nonzero() for axis in (1, 0))
    (top, bottom), (left, right) = ((int(edge[0]), int(edge[-1]) + 1) for edge in (rows, columns))
    side = math.ceil(max(bottom - top, right - left) * FACE_MARGIN)
    y, x = (top + bottom - side) // 2, (left + right - side) // 2
    square = torch.full((3, side, side), WHITE, dtype=picture.dtype, device=picture.device)
    height, width = picture.shape[-2:]
    y0, y1, x0, x1 = max(y, 0), min(y + side, height), max(x, 0), min(x + side, width)
    square[:, y0 - y : y1 - y, x0 - x : x1 - x] = picture[:, y0:y1, x0:x1]
    return square


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """(..., H, W) to (..., height, width): areas averaged if both sides shrink, else linear, as INTER_AREA."""
    shrinks = height <= picture.shape[-2] and width <= picture.shape[-1]
    weights = _area_weights if shrinks else _linear_weights
    down = weights(picture.shape[-2], height).to(picture)
    across = weights(picture.shape[-1], width).to(picture)
    return down @ picture @ across.T


def on_8_bits(picture: Tensor) -> Tensor:
    """Round to 8 bits, as the published pipeline does."""
    return (picture.clamp(0, 1) * 255).round() / 255


def _area_weights(before: int, after: int) -> Tensor:
    """(after, before): the share of each old cell in each new one."""
    edges = torch.arange(after + 1, dtype=torch.float64) * before / after
    cells = torch.arange(before, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
    return overlap.clamp_min(0) * after / before


def _linear_weights(before: int, after: int) -> Tensor:
    """(after, before): INTER_AREA's weights when a picture grows; new cells inside an old one copy it."""
    scale = before / after
    new = torch.arange(after, dtype=torch.float64)
    old = (new * scale).floor()
    share = new + 1 - (old + 1) / scale
    share = torch.where(share <= 0, torch.zeros_like(share), share - share.floor())
    weights = torch.zeros(after, before, dtype=torch.float64)
    index = old.long().clamp_max(before - 1)
    weights.scatter_add_(1, index[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, (index + 1).clamp_max(before - 1)[:, None], share[:, None])
    return weights


def prepare(picture: Tensor, mask: Tensor | None, task: str, resolution: int) -> Tensor:
    """Prepare a reference as the model was trained to see it.

    Args:
        picture: (3, H, W) in [0, 1].
        mask: (H, W) in [0, 1], what to keep; None keeps everything. A style reference keeps its background.
        task: subject, identity, style or try-on. A face is cut to a square of ``resolution``; without a mask that
            says where the face is, the whole picture is kept and resized by area, as the others.
        resolution: root of the area aimed at, in pixels.

    Returns:
        (3, h, w) in [0, 1] on the 8-bit grid, h and w multiples of 16.

    Raises:
        ValueError: a picture that is no numbers, or a mask that keeps nothing.
    """
    if not torch.isfinite(picture).all():
        raise ValueError("image: expected numbers in [0, 1], got NaN or infinity; load the picture again.")
    if mask is not None and not bool((mask > 0.5).any()):
        raise ValueError("mask: expected some of the picture to keep (white), got an empty mask.")
    if task == "identity" and mask is not None:
        side = max(SIDE, resolution // SIDE * SIDE)
        return on_8_bits(resize(cut_face(picture, mask), side, side))
    if mask is not None and task != "style":
        picture = on_white(picture, mask)
    height, width = picture.shape[-2:]
    return on_8_bits(resize(picture, *published_size(height, width, resolution)))
