"""Two subjects that never met in one picture: a column of each target, side by side (DreamO, arXiv:2504.16915, 4.1).

DreamO's warm-up puts pictures of single subjects next to each other, so that each reference learns to answer in its own
part of the picture. From triplets: the half of one target around one subject, and that of another triplet's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .dataset import Example
from .encoded_triplets import pad_to

_CELL = 16  # pixels: columns begin at a border of cells, so that annotations move by whole cells


def two_columns(left: Example, right: Example) -> Example:
    """Join the first subject of one crop and the last of another, with words that say where each is.

    Keypoints stay with their subjects; what lies outside its column is no longer visible.

    Args:
        left, right: of one size.
    """
    halves = [_column(left, 0, False), _column(right, len(right.boxes) - 1, True)]
    names = tuple(example.triplet.names[subject] for example, subject in ((left, 0), (right, len(right.boxes) - 1)))
    joints = max(half["visible"].shape[1] for half in halves)
    together = {name: [half[name] for half in halves] for name in halves[0]}

    def joined(name: str) -> Tensor:
        """Keypoints of both columns, padded to the same number of joints."""
        return torch.cat([pad_to(part, (1, joints, *part.shape[2:])) for part in together[name]])

    triplet = replace(
        left.triplet,
        name=f"{left.triplet.name} beside {right.triplet.name}",
        prompt=f"{names[0]} on the left, {names[1]} on the right",
        predicate="",
        names=names,
    )
    return Example(
        triplet=triplet,
        target=torch.cat(together["target"], dim=-1),
        concepts=torch.cat(together["concepts"]),
        photographs=(left.photographs[0], right.photographs[-1]),
        boxes=torch.cat(together["boxes"]),
        region=torch.cat(together["region"], dim=-1),
        shares=torch.cat(together["shares"]),
        keypoints_target=joined("keypoints_target"),
        keypoints_concepts=joined("keypoints_concepts"),
        visible=joined("visible"),
        time_ids=left.time_ids,
    )


def _column(example: Example, subject: int, right: bool) -> dict[str, Tensor]:
    """Cut the half of a target around a subject, moved to its side of the picture."""
    size = example.target.shape[-1]
    cells, half = size // _CELL, size // _CELL // 2
    box = example.boxes[subject]
    first = int(((box[0] + box[2]) / 2 * cells - half / 2).round().clamp(0, cells - half))
    window, start = slice(first * _CELL, (first + half) * _CELL), (half if right else 0)
    moved = (start - first) / cells

    shares = torch.zeros(1, cells, cells)
    shares[0, :, start : start + half] = example.shares[subject, :, first : first + half]
    points = example.keypoints_target[subject : subject + 1].clone()
    points[..., 0] += moved
    low, high = start / cells, (start + half) / cells
    inside = (points[..., 0] >= low) & (points[..., 0] <= high)
    edges = (box + torch.tensor([moved, 0.0, moved, 0.0])).clone()
    edges[0::2] = edges[0::2].clamp(low, high)
    return {
        "target": example.target[..., window],
        "region": example.region[:, 2 * first : 2 * (first + half)],
        "concepts": example.concepts[subject : subject + 1],
        "boxes": edges[None],
        "shares": shares,
        "keypoints_target": points,
        "keypoints_concepts": example.keypoints_concepts[subject : subject + 1],
        "visible": example.visible[subject : subject + 1] & inside,
    }
