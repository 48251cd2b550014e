"""Skeletons in the order of a detector, assigned to the subjects by their masks.

DreamRelation's loss pairs skeleton i with subject i, and its data have them in the detector's order: 4 of the 10
published samples supervise the wrong animal.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from torch import Tensor

# Below this difference between the best and the second best order, the masks do not tell.
_CLEAR = 0.1
_MOST_SUBJECTS = 6  # all orders are tried; 6 of 8 skeletons are 20160


def inside_share(skeletons: Tensor, masks: np.ndarray) -> Tensor:
    """Compute the share of each skeleton's visible keypoints inside each mask.

    Args:
        skeletons: (K, P, 3) x, y, visibility.
        masks: (S, H, W) bool.

    Returns:
        (K, S) in [0, 1].
    """
    height, width = masks.shape[-2:]
    columns = (skeletons[..., 0] * width).long().clamp(0, width - 1).numpy()
    rows = (skeletons[..., 1] * height).long().clamp(0, height - 1).numpy()
    visible = skeletons[..., 2].numpy() > 0
    inside = masks[:, rows, columns] & visible  # (S, K, P)
    return torch.from_numpy(inside.sum(-1) / np.maximum(visible.sum(-1), 1)).T.float()


def assign_keypoints_to_masks(skeletons: Tensor, masks: np.ndarray) -> tuple[tuple[int, ...], str]:
    """Return the skeleton of each subject: the order with the most keypoints inside the right masks.

    Args:
        skeletons: (K, P, 3), K >= S.
        masks: (S, H, W) bool.

    Returns:
        S indices into the skeletons, and a sentence for the log, empty where the given order is clearly right.

    Raises:
        ValueError: more than 6 subjects.
    """
    share = inside_share(skeletons, masks)
    count, subjects = share.shape
    if subjects > _MOST_SUBJECTS:
        raise ValueError(
            f"skeletons: matched for at most {_MOST_SUBJECTS} subjects, got {subjects}; give them in the "
            "subjects' order and set data.match_skeletons = false."
        )
    file_order = tuple(range(subjects))
    orders = permutations(range(count), subjects)
    scores = {order: float(sum(share[k, s] for s, k in enumerate(order))) for order in orders}
    best = max(scores, key=lambda order: (round(scores[order], 6), order == file_order))
    others = [score for order, score in scores.items() if order != best]
    sentence = ""
    if best != file_order:
        sentence = (
            f"skeletons reordered {[i + 1 for i in best]}: {scores[best]:.2f} of {subjects} skeletons lie in "
            f"their subjects' masks, {scores[file_order]:.2f} as given"
        )
    if others and scores[best] - max(others) < _CLEAR:
        sentence = (
            sentence or "skeletons kept as given"
        ) + "; the masks overlap too much to be sure, look at the preview"
    return best, sentence
