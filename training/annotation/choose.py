"""Give each name its box: all names of a picture at once, so that "bear" and "polar bear" do not share one animal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..common.boxes import areas, iou
from .backends import Box

SAME_ANIMAL = 0.85  # IoU from which two boxes are one animal
_CANDIDATES = 6  # for each name: the best of 6^6 choices is found by search


@dataclass(frozen=True)
class Candidate:
    """A box that a name may have."""

    box: Box
    score: float

    @property
    def weight(self) -> float:
        """Score times the root of the area: small animals in the background lose."""
        return self.score * math.sqrt(area(self.box))


def area(box: Box) -> float:
    """Return the share of the picture."""
    return float(areas(np.array([box]))[0])


def overlap(first: Box, second: Box) -> float:
    """Return the IoU of two boxes."""
    return float(iou(np.array([first]), np.array([second]))[0, 0])


def choose(candidates: Sequence[Sequence[Candidate]], least: float) -> list[Candidate | None]:
    """Choose a box for each name: the one-to-one choice with the largest sum of weights.

    Args:
        candidates: of each name.
        least: score below which a candidate is none.

    Returns:
        None for names that get no box: none is good enough, or another name has it.
    """
    ranked = [
        sorted((one for one in of_name if one.score >= least), key=lambda one: -one.weight)[:_CANDIDATES]
        for of_name in candidates
    ]
    bounds = [0.0] * (len(ranked) + 1)  # what the names from here on can add at most
    for index in reversed(range(len(ranked))):
        bounds[index] = bounds[index + 1] + (1 + ranked[index][0].weight if ranked[index] else 0)
    best: tuple[float, list[Candidate | None]] = (-1.0, [None] * len(ranked))

    def extend(chosen: list[Candidate | None], total: float) -> None:
        nonlocal best
        index = len(chosen)
        if total + bounds[index] <= best[0]:
            return
        if index == len(ranked):
            best = (total, chosen)
            return
        for one in ranked[index]:
            if all(other is None or overlap(one.box, other.box) < SAME_ANIMAL for other in chosen):
                extend([*chosen, one], total + 1 + one.weight)  # a further name found counts more than any weight
        extend([*chosen, None], total)

    extend([], 0.0)
    return best[1]


def rival(chosen: Candidate, candidates: Sequence[Candidate], others: Sequence[Box], share: float) -> Candidate | None:
    """Find another box of the same name that scores nearly as well and is nobody's, or None."""
    for one in sorted(candidates, key=lambda one: -one.score):
        free = all(overlap(one.box, box) < 0.5 for box in (chosen.box, *others))
        if free and one.score >= share * chosen.score:
            return one
    return None


def second(chosen: Candidate, candidates: Sequence[Candidate], least: float, share: float) -> Candidate | None:
    """Find a second subject of the same name in a photograph of one, as large as `share` of the first, or None."""
    for one in sorted(candidates, key=lambda one: -area(one.box)):
        if one.score >= least and overlap(one.box, chosen.box) < 0.5 and not _part_of(one.box, chosen.box):
            if area(one.box) >= share * area(chosen.box):
                return one
    return None


def _part_of(box: Box, whole: Box) -> bool:
    """Whether more than half of a box lies in another one: a head is no second animal."""
    sides = [min(box[i + 2], whole[i + 2]) - max(box[i], whole[i]) for i in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0) > 0.5 * area(box)
