"""Boxes as arrays: (..., 4) x0 y0 x1 y1 in fractions of the picture, or in pixels if all are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Compute areas: (N, 4) to (N,); reversed boxes have none."""
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute intersection over union of every pair: (N, 4) and (M, 4) to (N, M)."""
    first, second = np.asarray(first, float).reshape(-1, 4), np.asarray(second, float).reshape(-1, 4)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def centres(boxes: np.ndarray) -> np.ndarray:
    """Compute centres: (N, 4) to (N, 2)."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def centre_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the Euclidean distance between the centres of every pair: (N, 4) and (M, 4) to (N, M)."""
    return np.linalg.norm(centres(first)[:, None] - centres(second)[None, :], axis=-1)


def non_maximum_suppression(boxes: np.ndarray, scores: Sequence[float], overlap: float) -> list[int]:
    """Keep the best of every group of boxes that overlap by more than `overlap` (IoU).

    Returns:
        Indices of the boxes that remain, best score first; ties by index.
    """
    shared, indices = iou(boxes, boxes), []
    for index in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        if all(shared[index, other] <= overlap for other in indices):
            indices.append(index)
    return indices


def mask_box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    """Return the bounds of a mask (H, W) in fractions; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
