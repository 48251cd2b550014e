"""Which joint is which: the orders of AP-10K (animals, arXiv:2108.12617) and COCO (people), their bones and mirrors.

Joints are compared pairwise between a subject's two pictures, so an animal in one order may stand beside a person in
the other: both have 17.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JOINTS = 17
AP10K, COCO, NO_SKELETON = "ap10k", "coco", "none"


@dataclass(frozen=True)
class Skeleton:
    """An order of 17 joints.

    Attributes:
        category: what COCO files call a subject that has it.
        joints: names in order.
        bones: pairs of joints, from 0.
        mirror: pairs that change places when the picture is mirrored.
    """

    category: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirror: tuple[tuple[int, int], ...]

    def mirrored(self) -> list[int]:
        """Return for each joint the one that stands in its place in a mirrored picture."""
        order = list(range(JOINTS))
        for left, right in self.mirror:
            order[left], order[right] = right, left
        return order


_ANIMAL = (
    "left eye, right eye, nose, neck, root of tail, left shoulder, left elbow, left front paw, right shoulder, "
    "right elbow, right front paw, left hip, left knee, left back paw, right hip, right knee, right back paw"
)
_PERSON = (
    "nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow, "
    "left wrist, right wrist, left hip, right hip, left knee, right knee, left ankle, right ankle"
)


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in (pair.split("-") for pair in text.split()))


SKELETONS = {
    AP10K: Skeleton(
        "animal",
        tuple(_ANIMAL.split(", ")),
        _pairs("0-1 0-2 1-2 2-3 3-4 3-5 5-6 6-7 3-8 8-9 9-10 4-11 11-12 12-13 4-14 14-15 15-16"),
        _pairs("0-1 5-8 6-9 7-10 11-14 12-15 13-16"),
    ),
    COCO: Skeleton(
        "person",
        tuple(_PERSON.split(", ")),
        _pairs("15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6"),
        _pairs("1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16"),
    ),
}


def bones_of(extra: Mapping[str, Any], subject: int) -> tuple[tuple[int, int], ...]:
    """Return the bones of a subject of a triplet, by the line's optional key `skeletons`; else animals'."""
    names = extra.get("skeletons")
    listed = isinstance(names, Sequence) and not isinstance(names, str) and subject < len(names)
    name = names[subject] if listed else AP10K
    if not isinstance(name, str) or name == NO_SKELETON:
        return ()
    return SKELETONS[name].bones if name in SKELETONS else ()
