"""Read other nodes' pose frames as joints of a triplet: OpenPose's 18 of people to COCO's 17, AP-10K's 17 of animals.

A frame is {"canvas_width", "canvas_height", "people": [{"pose_keypoints_2d": [x, y, score, ...]}]}, or has "animals",
each a list of 17 [x, y, score]. Coordinates are pixels of the canvas, or fractions if all are near it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

JOINTS = 17
MIN_SCORE = 0.3  # from which a joint counts as visible
LARGEST_FRACTION = 2.0  # a joint may be guessed outside of the picture; nobody stands on two pixels
# COCO's joints among OpenPose's 18, whose second is the neck: nose, eyes, ears, shoulders, elbows, wrists, hips ...
_COCO_IN_OPENPOSE = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)


def read_poses(keypoints: Any, subjects: int) -> tuple[list[Tensor], str]:
    """Read the frames of a target and of its subjects' photographs.

    Args:
        keypoints: POSE_KEYPOINT: a frame for the target, then one for each subject.
        subjects: number of subjects.

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
        raw = [torch.tensor(animal, dtype=torch.float32).reshape(JOINTS, 3) for animal in animals] or [
            torch.tensor(person["pose_keypoints_2d"], dtype=torch.float32).reshape(-1, 3)[list(_COCO_IN_OPENPOSE)]
            for person in frame.get("people") or ()
        ]
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"keypoints: frame {number + 1} is no OpenPose frame ({error}); expected canvas_width, canvas_height and "
            "people with pose_keypoints_2d."
        ) from error
    if not raw:
        return torch.zeros(0, JOINTS, 3)
    joints = torch.stack(raw)
    pixels = bool((joints[..., :2].abs() > LARGEST_FRACTION).any())
    points = joints[..., :2] / size if pixels else joints[..., :2]
    visible = (joints[..., 2] >= MIN_SCORE) & ((points >= 0) & (points <= 1)).all(-1)  # not NaN either
    return torch.cat((torch.where(visible[..., None], points, 0.0), visible[..., None].float()), dim=-1)


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
    on_subject = masks[:, y, x] & (skeletons[..., 2] > 0)  # (S, K, 17)
    rows = torch.zeros(len(masks), JOINTS, 3)
    for subject, index in enumerate(_best_order(on_subject.sum(-1))):
        if index is not None:
            rows[subject, :, :2] = skeletons[index, :, :2]
            rows[subject, :, 2] = on_subject[subject, index].float()
    return rows


def largest(skeletons: Tensor) -> Tensor:
    """(K, 17, 3) to the (17, 3) that spans most of the photograph; zeros if there is none."""
    if not len(skeletons):
        return torch.zeros(JOINTS, 3)
    areas = []
    for skeleton in skeletons:
        points = skeleton[skeleton[:, 2] > 0][:, :2]
        areas.append(float((points.amax(dim=0) - points.amin(dim=0)).prod()) if len(points) else 0.0)
    return skeletons[max(range(len(areas)), key=areas.__getitem__)]


def _best_order(counts: Tensor) -> Sequence[int | None]:
    """Choose a skeleton of its own for each subject, so that most joints lie on their subjects."""
    subjects, skeletons = counts.shape
    choices = [*range(skeletons), *[None] * subjects]
    orders = dict.fromkeys(itertools.permutations(choices, subjects)) if len(choices) <= 8 else [tuple(_greedy(counts))]
    return max(
        orders,
        key=lambda order: sum(int(counts[subject, index]) for subject, index in enumerate(order) if index is not None),
    )


def _greedy(counts: Tensor) -> list[int | None]:
    """Choose for one subject after the other, as in crowds there are too many orders to compare."""
    order: list[int | None] = []
    for row in counts.tolist():
        free = [index for index in range(len(row)) if index not in order and row[index]]
        order.append(max(free, key=row.__getitem__) if free else None)
    return order
