"""Measure one picture from similarities, boxes and names alone; pure functions.

Notation: R references with names n_i and, where given, boxes b_i; D detections; S the (R, D) cosines of their
embeddings; a(i) the detection assigned to reference i (`hungarian.assign`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...common.boxes import centre_distances, centres, iou
from .hungarian import assign, maximum_assignment

CONFUSION_MARGIN = 0.05


@dataclass(frozen=True, eq=False)
class Picture:
    """Requested and detected subjects of one picture.

    Attributes:
        similarity: (R, D).
        names: R requested names.
        detected_names: D names, one per detection.
        boxes: (R, 4) requested boxes, or None.
        detected_boxes: (D, 4).
    """

    similarity: np.ndarray
    names: tuple[str, ...]
    detected_names: tuple[str, ...]
    detected_boxes: np.ndarray
    boxes: np.ndarray | None = None


@dataclass(frozen=True)
class SubjectMeasures:
    """Measures of one picture; None where a measure does not apply.

    Attributes:
        found: assigned references / R.
        identity: mean of S[i, a(i)], a missing reference counting 0.
        identity_found: the same over assigned references only.
        count_exact: 1 if every name has as many detections as references, else 0.
        extra: detections beyond R.
        fewer: 1 if D < R: detectors merge subjects that hug.
        duplicate: 1 if two references resemble one detection most while D >= R >= 2.
        swap: 1 if the boxes get the same detections as the identities, but others each. Needs boxes, D >= R >= 2 and
            every reference assigned; else 0 (None without boxes or with one reference).
        misplaced: 1 if the boxes get other detections than the identities; else as `swap`.
        name_swap: 1 if a(i) was detected under the name of another reference; for pictures without boxes.
        confusion: share of assigned references whose detection resembles another reference more, by over .05.
        margin: mean of S[i, a(i)] - max over j != i of S[j, a(i)].
        in_place: mean IoU of a(i) with b_i, a missing reference counting 0.
        centre_inside: share of references whose detection has its centre inside b_i.
    """

    found: float
    identity: float
    identity_found: float | None
    count_exact: float
    extra: float
    fewer: float
    duplicate: float | None
    swap: float | None
    misplaced: float | None
    name_swap: float | None
    confusion: float | None
    margin: float | None
    in_place: float | None
    centre_inside: float | None

    def table(self) -> dict[str, float | None]:
        return asdict(self)


MEASURES = tuple(SubjectMeasures.__dataclass_fields__)


def measure(picture: Picture, floor: float) -> tuple[SubjectMeasures, list[int | None]]:
    """Compute all measures of a picture, and the assignment they rest on.

    Args:
        picture: with at least one reference.
        floor: see `assign`.

    Raises:
        ValueError: no reference, or shapes that do not fit each other.
    """
    _check(picture)
    S, references, detections = picture.similarity, len(picture.names), len(picture.detected_names)
    a = assign(S, floor)
    pairs = [(i, j) for i, j in enumerate(a) if j is not None]
    own = [float(S[i, j]) for i, j in pairs]
    swap, misplaced = _swapped(picture, a)
    margins = _margins(S, pairs) if references > 1 else []
    in_place, inside = _in_place(picture, pairs)
    several = references > 1
    return SubjectMeasures(
        found=len(pairs) / references,
        identity=sum(own) / references,
        identity_found=sum(own) / len(own) if own else None,
        count_exact=float(Counter(picture.names) == Counter(picture.detected_names)),
        extra=float(max(0, detections - references)),
        fewer=float(detections < references),
        duplicate=float(_duplicate(S)) if several else None,
        swap=swap,
        misplaced=misplaced,
        name_swap=float(_name_swapped(picture, pairs)) if several else None,
        confusion=sum(margin < -CONFUSION_MARGIN for margin in margins) / len(margins) if margins else None,
        margin=sum(margins) / len(margins) if margins else None,
        in_place=in_place,
        centre_inside=inside,
    ), a


def _check(picture: Picture) -> None:
    references, detections = len(picture.names), len(picture.detected_names)
    shapes = {
        "similarity": (picture.similarity.shape, (references, detections)),
        "detected_boxes": (picture.detected_boxes.shape, (detections, 4)),
    }
    if picture.boxes is not None:
        shapes["boxes"] = (picture.boxes.shape, (references, 4))
    wrong = [f"{name} {got}, expected {expected}" for name, (got, expected) in shapes.items() if got != expected]
    if not references or wrong:
        raise ValueError("; ".join(wrong) or "expected at least one reference")


def _duplicate(S: np.ndarray) -> bool:
    """Whether two references resemble the same detection most, though there are enough detections for all."""
    references, detections = S.shape
    return detections >= references and len(set(S.argmax(1).tolist())) < references


def match_boxes(boxes: np.ndarray, detected: np.ndarray) -> list[int]:
    """Match each box to a detection: by IoU, or by the distance of centres where boxes do not touch.

    Args:
        boxes: (R, 4).
        detected: (D, 4), D >= R.
    """
    overlap = iou(boxes, detected)
    return maximum_assignment(np.where(overlap > 0, overlap, -centre_distances(boxes, detected)))


def _swapped(picture: Picture, a: Sequence[int | None]) -> tuple[float | None, float | None]:
    """Compute `swap` and `misplaced`."""
    references, detections = picture.similarity.shape
    if picture.boxes is None or references < 2:
        return None, None
    if detections < references or None in a:
        return 0.0, 0.0
    by_place = match_boxes(picture.boxes, picture.detected_boxes)
    same_things = set(by_place) == set(a)
    return float(same_things and by_place != list(a)), float(not same_things)


def _name_swapped(picture: Picture, pairs: Sequence[tuple[int, int]]) -> bool:
    names = [(picture.names[i], picture.detected_names[j]) for i, j in pairs]
    return any(detected != name and detected in picture.names for name, detected in names)


def _margins(S: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[float]:
    return [float(S[i, j] - np.delete(S[:, j], i).max()) for i, j in pairs]


def _in_place(picture: Picture, pairs: Sequence[tuple[int, int]]) -> tuple[float | None, float | None]:
    """Compute `in_place` and `centre_inside`."""
    if picture.boxes is None:
        return None, None
    overlap, middle = iou(picture.boxes, picture.detected_boxes), centres(picture.detected_boxes)
    inside = [
        bool((picture.boxes[i, :2] <= middle[j]).all() and (middle[j] <= picture.boxes[i, 2:]).all()) for i, j in pairs
    ]
    references = len(picture.names)
    return sum(float(overlap[i, j]) for i, j in pairs) / references, sum(inside) / references
