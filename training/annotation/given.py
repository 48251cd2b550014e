"""Use the annotation of a folder of triplets, the authors' or ours, in place of models.

So it gets the gates, the review page and files to edit without any weights. Photographs of single subjects have no
boxes there: the bounds of their joints stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..common.image_files import open_image, open_mask
from ..common.vision import Detection
from ..config import DataConfig
from ..data.dataset import load_triplets
from ..data.skeletons import AP10K, COCO, NO_SKELETON
from ..data.triplet import Triplet
from .backends import Backends, Box, Part
from .choose import overlap
from .options import ANIMAL, KINDS, OBJECT, PERSON
from .raw import RawTriplet
from .sentence import skeletons_of
from .store import pixels_hash

_AROUND = 0.15  # of the joints' bounds, added on every side
_KIND_OF = {AP10K: ANIMAL, COCO: PERSON, NO_SKELETON: OBJECT}  # of a subject whose line names its joints alone


@dataclass(frozen=True, eq=False)
class GivenSubject:
    """One subject of a picture, as the folder's own annotation has it; `skeleton` is empty where nobody says."""

    name: str
    skeleton: str
    box: Box
    mask: Path | None
    joints: np.ndarray

    def facts(self) -> tuple[Any, ...]:
        """Return everything that the answers about it depend on."""
        mask = sha256(self.mask.read_bytes()).hexdigest() if self.mask else ""
        return self.name, self.skeleton, self.box, mask, self.joints.tolist()


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
        origin, skeletons = one.extra.get("origin"), _words(one, "skeletons", _KIND_OF)
        kinds = _kinds(_words(one, "kinds", KINDS), skeletons)
        origin = dict(origin) if isinstance(origin, Mapping) else {}
        raw.append(
            RawTriplet(f"{number:02d}", one.target, one.concepts, one.names, one.prompt, origin, one.predicate, kinds)
        )
        orders = skeletons or ("",) * len(one.names)
        in_target = [_in_target(one, index, orders[index]) for index in range(len(one.names))]
        subjects.setdefault(pixels_hash(open_image(one.target)), []).extend(in_target)
        for index, concept in enumerate(one.concepts):
            joints = _joints(one.keypoints_concepts[index])
            of_concept = GivenSubject(one.names[index], orders[index], _around(joints), None, joints)
            subjects.setdefault(pixels_hash(open_image(concept)), []).append(of_concept)
    facts = repr([(digest, [one.facts() for one in rows]) for digest, rows in subjects.items()])
    answers = sha256(facts.encode()).hexdigest()

    def part(role: str, skeleton: str = "") -> Part:
        table = GivenAnnotation(subjects, skeleton)
        return Part(
            f"{folder.name}'s own {role}", f"given/{role}/{answers}", "the data's own", lambda: None, lambda: table
        )

    poses = {skeleton: part("keypoints", skeleton) for skeleton in (AP10K, COCO)}
    return raw, Backends(part("boxes"), part("masks"), poses)


class GivenAnnotation:
    """Detector, cutter and pose model of one order of joints, which look pictures up by their pixels."""

    name = "given"

    def __init__(self, subjects: dict[str, list[GivenSubject]], skeleton: str) -> None:
        self.subjects, self.skeleton = subjects, skeleton

    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See the protocol."""
        rows = self.subjects[pixels_hash(image)]
        return [Detection(one.name, one.box, 0.99) for name in names for one in rows if one.name == name]

    def cut(self, image: Image.Image, boxes: Sequence[Box]) -> list[tuple[np.ndarray | None, float | None]]:
        """See the protocol; photographs of single subjects have no masks."""
        paths = [self._nearest(image, box).mask for box in boxes]
        return [(None if path is None else open_mask(path), None) for path in paths]

    def joints(self, image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        """See the protocol; joints in another order are none of these."""
        rows = [self._nearest(image, box) for box in boxes]
        return np.stack([one.joints * (one.skeleton in ("", self.skeleton)) for one in rows])

    def _nearest(self, image: Image.Image, box: Box) -> GivenSubject:
        return max(self.subjects[pixels_hash(image)], key=lambda one: overlap(one.box, box))


def _words(one: Triplet, key: str, choices: Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """Return what an optional key of a line says of each subject; nothing where it says anything else."""
    words = one.extra.get(key)
    fits = isinstance(words, list) and len(words) == len(one.names)
    return tuple(words) if fits and all(isinstance(word, str) and word in choices for word in words) else ()


def _kinds(kinds: Sequence[str], skeletons: Sequence[str]) -> tuple[str, ...]:
    """Return what subjects are: as their line says, or by their joints where it says nothing that has such joints."""
    if not skeletons:
        return tuple(kinds)
    pairs = zip(kinds or ("",) * len(skeletons), skeletons)
    return tuple(kind if order in skeletons_of(kind) else _KIND_OF[order] for kind, order in pairs)


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
