"""Pose frames of other nodes to joints of a triplet: OpenPose's 18 of people to COCO's 17, AP-10K's 17 of animals.

A frame is {"canvas_width", "canvas_height", "people": [{"pose_keypoints_2d": [x, y, score, ...]}]}, or has "animals",
each a list of 17 [x, y, score]. Coordinates are pixels of the canvas, or fractions if none exceeds 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

JOINTS = 17
SEEN = 0.3  # score from which a joint counts
# COCO's joints among OpenPose's 18, whose second is the neck: nose, eyes, ears, shoulders, elbows, wrists, hips ...
_COCO_IN_OPENPOSE = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)


def read_poses(keypoints: Any, subjects: int) -> tuple[list[Tensor], str]:
    """Read the frames of a target and of its subjects' photographs.

    Args:
        keypoints: POSE_KEYPOINT: a frame for the target, then one for each subject.
        subjects: how many there are.

    Returns:
        Skeletons of each frame, (K, 17, 3) x, y in fractions and visibility 0 or 1; and `coco` or `ap10k`.

    Raises:
        ValueError: other frames than those.
    """
    frames = [keypoints] if isinstance(keypoints, dict) else list(keypoints)
    if len(frames) != 1 + subjects:
        raise ValueError(
            f"keypoints: expected {1 + subjects} frames, the target's and one for each of {subjects} subjects, got "
            f"{len(frames)}. Batch the target and the photographs before the pose detector, in that order."
        )
    kinds = {"ap10k" if frame.get("animals") else "coco" for frame in frames}
    if len(kinds) > 1:
        raise ValueError("keypoints: expected people in all frames, or animals in all, got both.")
    skeletons = [_skeletons(frame, number) for number, frame in enumerate(frames)]
    return skeletons, kinds.pop()


def _skeletons(frame: dict[str, Any], number: int) -> Tensor:
    """(K, 17, 3) of one frame."""
    try:
        size = torch.tensor([float(frame["canvas_width"]), float(frame["canvas_height"])])
        animals = frame.get("animals") or ()
        raw = [torch.tensor(one, dtype=torch.float32).reshape(JOINTS, 3) for one in animals] or [
            torch.tensor(one["pose_keypoints_2d"], dtype=torch.float32).reshape(-1, 3)[list(_COCO_IN_OPENPOSE)]
            for one in frame.get("people") or ()
        ]
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"keypoints: frame {number + 1} is no OpenPose frame ({error}); expected canvas_width, canvas_height and "
            "people with pose_keypoints_2d."
        ) from error
    if not raw:
        return torch.zeros(0, JOINTS, 3)
    joints = torch.stack(raw)
    pixels = bool((joints[..., :2].abs() > 1).any())
    where = joints[..., :2] / size if pixels else joints[..., :2]
    seen = (joints[..., 2] >= SEEN) & ((where >= 0) & (where <= 1)).all(-1)  # not NaN either
    return torch.cat((torch.where(seen[..., None], where, 0.0), seen[..., None].float()), dim=-1)


def match_to_masks(skeletons: Tensor, masks: Tensor) -> Tensor:
    """Give each subject the skeleton that has most joints on it; joints off the subject do not count.

    Args:
        skeletons: (K, 17, 3).
        masks: (S, H, W) bool, where each subject is in the target.

    Returns:
        (S, 17, 3); a subject without a skeleton has joints of visibility 0.
    """
    height, width = masks.shape[-2:]
    x = (skeletons[..., 0] * width).long().clamp(0, width - 1)
    y = (skeletons[..., 1] * height).long().clamp(0, height - 1)
    on = masks[:, y, x] & (skeletons[..., 2] > 0)  # (S, K, 17)
    counts = on.sum(-1)
    order = _best_order(counts)
    rows = [
        skeletons[one] * torch.tensor([1.0, 1.0, 0.0])
        + torch.nn.functional.pad(on[subject, one, None].T.float(), (2, 0))
        if one is not None
        else torch.zeros(JOINTS, 3)
        for subject, one in enumerate(order)
    ]
    return torch.stack(rows)


def largest(skeletons: Tensor) -> Tensor:
    """(K, 17, 3) to the (17, 3) that spans most of the photograph; zeros if there is none."""
    if not len(skeletons):
        return torch.zeros(JOINTS, 3)
    spans = [(one[one[:, 2] > 0][:, :2].aminmax(dim=0) if (one[:, 2] > 0).any() else None) for one in skeletons]
    areas = [0.0 if span is None else float((span.max - span.min).prod()) for span in spans]
    return skeletons[max(range(len(areas)), key=areas.__getitem__)]


def _best_order(counts: Tensor) -> Sequence[int | None]:
    """For each subject a skeleton of its own, so that most joints lie on their subjects."""
    subjects, found = counts.shape
    choices = [*range(found), *[None] * subjects]
    orders = dict.fromkeys(itertools.permutations(choices, subjects)) if len(choices) <= 8 else [tuple(_greedy(counts))]
    return max(
        orders,
        key=lambda order: sum(int(counts[subject, one]) for subject, one in enumerate(order) if one is not None),
    )


def _greedy(counts: Tensor) -> list[int | None]:
    """For crowds: subjects choose one after the other."""
    taken: set[int] = set()
    order: list[int | None] = []
    for row in counts.tolist():
        free = [one for one in range(len(row)) if one not in taken and row[one]]
        order.append(max(free, key=row.__getitem__) if free else None)
        taken.update(one for one in order[-1:] if one is not None)
    return order
