"""Measure subjects of pictures: detect by name, embed crops, assign, measure.

Each different name is detected once in a picture; crops are padded white to squares, with the mask painted in where
there is one; a reference's embedding is the mean over its photographs after normalising. The floor below which a
detection matches no reference is measured from the references themselves: the 95 % quantile of the cosines between
different subjects of the prompts file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...common.errors import UserErrors
from ...common.image_files import open_picture
from ...common.vision import Detection, Detector, ImageEncoder, Segmenter, crop, select
from ..prompts import Entry
from .measures import Picture, SubjectMeasures, measure

FLOOR_QUANTILE = 0.95
WHOLE = (0.0, 0.0, 1.0, 1.0)
PERSON = "person"
_PEOPLE = {"man", "woman", "person", "boy", "girl", "child", "lady", "guy", "baby", "kid", "people"}


@dataclass(frozen=True)
class SubjectModels:
    """Models that find and embed subjects.

    Attributes:
        detector: finds subjects by name.
        encoder: embeds crops and photographs.
        segmenter: cuts subjects out of boxes and photographs; None embeds whole boxes.
    """

    detector: Detector
    encoder: ImageEncoder
    segmenter: Segmenter | None = None

    def names(self) -> dict[str, str]:
        return {"detector": self.detector.name, "encoder": self.encoder.name} | (
            {"segmenter": self.segmenter.name} if self.segmenter else {}
        )


@dataclass(frozen=True, eq=False)
class SubjectRow:
    """One picture.

    Attributes:
        measures: see `SubjectMeasures`.
        detections: of the picture, best first.
        assigned: for each reference the index of its detection, or None.
    """

    measures: SubjectMeasures
    detections: tuple[Detection, ...]
    assigned: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class SubjectResults:
    """All pictures.

    Attributes:
        rows: one for each picture; None where nothing can be measured (no names or no references).
        floor: cosine at or below which a detection matches no reference.
        floor_from: number of different subjects the floor was measured from; 0 if the options set it.
        models: names by role.
    """

    rows: tuple[SubjectRow | None, ...]
    floor: float
    floor_from: int
    models: dict[str, str]


def detection_name(name: str) -> str:
    """Return the name to detect: people by their class, everything else by its name."""
    words = name.lower().split()
    return PERSON if words and words[-1] in _PEOPLE else name


def measure_subjects(
    entries: Sequence[Entry],
    models: SubjectModels,
    floor: float | None = None,
    progress: Callable[[Sequence], Sequence] = lambda items: items,
) -> SubjectResults:
    """Measure every picture that has names and references.

    Args:
        entries: the prompts file.
        models: detector and encoder.
        floor: None measures it from the references.
        progress: wraps the iteration, as `tqdm` does.

    Raises:
        UserErrors: pictures that cannot be decoded, all of them; a floor that cannot be measured.
    """
    usable = [entry for entry in entries if entry.names and entry.references]
    _check_files(usable)
    photographs = {views: name for entry in usable for views, name in zip(photographs_of(entry), entry.names)}
    looks = {views: _embed_subject(views, name, models) for views, name in photographs.items()}
    measured_from = 0
    if floor is None:
        floor, measured_from = measure_floor(list(looks.values())), len(looks)
    rows: dict[int, SubjectRow] = {}
    for entry in progress(usable):
        references = torch.stack([looks[views] for views in photographs_of(entry)])
        rows[entry.line] = _measure_one(entry, references, models, floor)
    return SubjectResults(tuple(rows.get(entry.line) for entry in entries), floor, measured_from, models.names())


def photographs_of(entry: Entry) -> list[tuple[Path, ...]]:
    """Return the files of each subject: its reference first, then its further views."""
    views = entry.views or ((),) * len(entry.references)
    return [tuple(dict.fromkeys((reference, *more))) for reference, more in zip(entry.references, views)]


def measure_floor(looks: Sequence[Tensor]) -> float:
    """Return the 95 % quantile of the cosines between different subjects.

    Raises:
        UserErrors: fewer than two subjects.
    """
    if len(looks) < 2:
        raise UserErrors(
            f"the floor of the assignment is measured between different subjects, and the prompts file has "
            f"{len(looks)}. Give it with --floor, e.g. --floor 0.4."
        )
    cosines = torch.stack(list(looks)) @ torch.stack(list(looks)).T
    rows, columns = torch.triu_indices(len(looks), len(looks), 1)
    return float(np.quantile(cosines[rows, columns].numpy(), FLOOR_QUANTILE))


def find_subjects(image: Image.Image, names: Sequence[str], models: SubjectModels) -> list[Detection]:
    """Return detections of a picture under its different names, selected, with masks where there is a segmenter."""
    detection_names = list(dict.fromkeys(map(detection_name, names)))
    detections = select(models.detector.detect(image, detection_names), image.size)
    if models.segmenter is None or not detections:
        return detections
    masks = models.segmenter.masks(image, [one.box for one in detections])
    return [
        Detection(one.name, one.box, one.score, mask if one.mask is None else one.mask)
        for one, mask in zip(detections, masks)
    ]


def _measure_one(entry: Entry, references: Tensor, models: SubjectModels, floor: float) -> SubjectRow:
    image = open_picture(entry.picture)
    detections = find_subjects(image, entry.names, models)
    similarity = np.zeros((len(references), 0))
    if detections:
        crops = [crop(image, one.box, one.mask) for one in detections]
        similarity = (references @ F.normalize(models.encoder.pictures(crops), dim=-1).T).numpy()
    measures, assigned = measure(
        Picture(
            similarity,
            tuple(map(detection_name, entry.names)),
            tuple(one.name for one in detections),
            np.array([one.box for one in detections]).reshape(-1, 4),
            np.array(entry.boxes) if entry.boxes else None,
        ),
        floor,
    )
    return SubjectRow(measures, tuple(detections), tuple(assigned))


def _embed_subject(views: Sequence[Path], name: str, models: SubjectModels) -> Tensor:
    """Return (E,), the normalised mean of the normalised embeddings of a subject's photographs.

    A photograph is cut to the best detection of the subject's name; where there is none it is taken whole.
    """
    pieces = []
    for path in views:
        image = open_picture(path)
        # The subject without its surroundings, as it is cut out of the picture.
        best = next(iter(find_subjects(image, [name], models)), None)
        box, mask = (best.box, best.mask) if best else (WHOLE, None)
        pieces.append(crop(image, box, mask))
    return F.normalize(F.normalize(models.encoder.pictures(pieces), dim=-1).mean(0), dim=-1)


def _check_files(entries: Sequence[Entry]) -> None:
    """Open every picture once before any model runs."""
    faults = []
    files = dict.fromkeys(
        file
        for entry in entries
        for file in (entry.picture, *(view for views in photographs_of(entry) for view in views))
    )
    for file in files:
        try:
            open_picture(file)
        except UserErrors as fault:
            faults += fault.messages
    if faults:
        raise UserErrors(faults)
