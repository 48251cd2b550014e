"""Use the annotation of a folder of triplets, the authors' or ours, in place of models.

So it gets the gates, the review page and files to edit without any weights. Photographs of single subjects have no
boxes there: the bounds of their joints stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..common.image_files import open_image, open_mask
from ..common.vision import Detection
from ..config import DataConfig
from ..data.dataset import load_triplets
from ..data.skeletons import AP10K, COCO
from ..data.triplet import Triplet
from .backends import Backends, Box, Part
from .choose import overlap
from .raw import RawTriplet
from .store import pixels_hash

_AROUND = 0.15  # of the joints' bounds, added on every side


@dataclass(frozen=True, eq=False)
class GivenSubject:
    """One subject of a picture, as the folder's own annotation has it."""

    name: str
    skeleton: str
    box: Box
    mask: Path | None
    joints: np.ndarray


def is_given(folder: Path) -> bool:
    """Tell a folder of annotated triplets from one of raw pictures."""
    return any((folder / name).is_file() for name in ("triplets.jsonl", "prompts.json"))


def read_given(folder: Path, relation: str) -> tuple[list[RawTriplet], Backends]:
    """Read triplets and their own annotation.

    Raises:
        UserErrors: everything that is wrong with the folder.
    """
    triplets = load_triplets(DataConfig(folder=str(folder), fit="pad"), relation)
    raw, subjects = [], {}
    for number, one in enumerate(triplets):
        raw.append(RawTriplet(f"{number:02d}", one.target, one.concepts, one.names, one.prompt, {}, one.predicate))
        skeletons = one.extra.get("skeletons") or [AP10K] * len(one.names)
        in_target = [_in_target(one, index, skeletons[index]) for index in range(len(one.names))]
        subjects.setdefault(pixels_hash(open_image(one.target)), []).extend(in_target)
        for index, concept in enumerate(one.concepts):
            joints = _joints(one.keypoints_concepts[index])
            of_concept = GivenSubject(one.names[index], skeletons[index], _around(joints), None, joints)
            subjects.setdefault(pixels_hash(open_image(concept)), []).append(of_concept)
    table = GivenAnnotation(subjects)

    def part(role: str) -> Part:
        key = repr([(digest, [(one.name, one.box) for one in rows]) for digest, rows in subjects.items()])
        return Part(f"{folder.name}'s own {role}", f"given/{role}/{key}", "the data's own", lambda: None, lambda: table)

    poses = {skeleton: part("keypoints") for skeleton in (AP10K, COCO)}
    return raw, Backends(part("boxes"), part("masks"), poses)


class GivenAnnotation:
    """Detector, cutter and pose model that look pictures up by their pixels."""

    name = "given"

    def __init__(self, subjects: dict[str, list[GivenSubject]]) -> None:
        self.subjects = subjects

    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See the protocol."""
        rows = self.subjects[pixels_hash(image)]
        return [Detection(one.name, one.box, 0.99) for name in names for one in rows if one.name == name]

    def cut(self, image: Image.Image, boxes: Sequence[Box]) -> list[tuple[np.ndarray | None, float | None]]:
        """See the protocol; photographs of single subjects have no masks."""
        paths = [self._nearest(image, box).mask for box in boxes]
        return [(None if path is None else open_mask(path), None) for path in paths]

    def joints(self, image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        """See the protocol."""
        return np.stack([self._nearest(image, box).joints for box in boxes])

    def _nearest(self, image: Image.Image, box: Box) -> GivenSubject:
        return max(self.subjects[pixels_hash(image)], key=lambda one: overlap(one.box, box))


def _in_target(one: Triplet, index: int, skeleton: str) -> GivenSubject:
    box = tuple(float(edge) for edge in one.facts.boxes[index].clamp(0, 1))
    mask = one.masks[index] if one.masks else None
    return GivenSubject(one.names[index], skeleton, box, mask, _joints(one.keypoints_target[index]))


def _joints(points) -> np.ndarray:
    """Return (17, 3) x, y and a score of 1 or 0; zeros where there are none."""
    joints = np.zeros((17, 3))
    if len(points) == 17:
        joints[:] = points.numpy()
        joints[:, 2] = joints[:, 2] > 0
    return joints


def _around(joints: np.ndarray) -> Box:
    """Return the bounds of the joints with a margin, or the whole picture."""
    visible = joints[joints[:, 2] > 0, :2]
    if len(visible) < 2:
        return 0.0, 0.0, 1.0, 1.0
    low, high = visible.min(0), visible.max(0)
    margin = _AROUND * (high - low)
    x0, y0, x1, y1 = np.concatenate((low - margin, high + margin)).clip(0, 1)
    return (float(x0), float(y0), float(x1), float(y1)) if min(x1 - x0, y1 - y0) > 0 else (0.0, 0.0, 1.0, 1.0)
