"""Decide which joints count: only those on the subject's own visible pixels.

A joint hidden behind the other subject would compare the wrong animal's latents; scores of heatmaps do not show it,
since annotators guess hidden joints too.
"""

from __future__ import annotations

import numpy as np

from ..data.skeletons import JOINTS
from .backends import Box
from .masks import dilate
from .thresholds import DetectionLimits

NOWHERE, HIDDEN, COUNTS = 0, 1, 2


def no_joints() -> np.ndarray:
    """Return (17, 3) of a subject without a skeleton."""
    return np.zeros((JOINTS, 3))


def visibility(scored: np.ndarray, mask: np.ndarray | None, box: Box, size: tuple[int, int], limits: DetectionLimits):
    """Turn joints with scores into joints with a visibility.

    Args:
        scored: (17, 3) x, y in fractions, score.
        mask: (H, W) of the subject's visible pixels; without one its box stands for it.
        box: of the subject.
        size: width and height of the picture, pixels.
        limits: the score and the distance from the mask up to which a joint counts.

    Returns:
        (17, 3) x, y, and 2 counts, 1 hidden or faint, 0 outside the picture.
    """
    width, height = size
    joints = np.array(scored, float)
    x, y = joints[:, 0], joints[:, 1]
    inside = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    own = (x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])
    if mask is not None:
        near = dilate(mask, limits.hidden * max((box[2] - box[0]) * width, (box[3] - box[1]) * height))
        columns = (x * width).astype(int).clip(0, width - 1)
        own = near[(y * height).astype(int).clip(0, height - 1), columns]
    counts = inside & own & (scored[:, 2] >= limits.joint)
    joints[:, 2] = np.where(counts, COUNTS, np.where(inside, HIDDEN, NOWHERE))
    joints[~inside] = 0
    return joints


def score_inside(scored: np.ndarray, mask: np.ndarray | None, box: Box, size: tuple[int, int], limits: DetectionLimits):
    """Return the mean score of the joints that lie on the subject, to choose between two skeletons; 0 without any."""
    on_subject = visibility(scored, mask, box, size, limits)[:, 2] == COUNTS
    return float(scored[on_subject, 2].mean()) if on_subject.any() else 0.0
