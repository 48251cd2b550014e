"""The stages of an annotation, each over all pictures with one model in memory: detect, cut, pose, embed, read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch

from ..common.boxes import mask_box
from ..common.image_files import open_image
from ..common.vision import crop, select
from ..data.skeletons import NO_SKELETON
from .annotated import Annotated, SeenPicture, SeenSubject
from .backends import Backends, Box
from .choose import Candidate, choose, overlap
from .edits import PictureEdits
from .joints import score_inside, visibility
from .masks import clean, paint_over
from .options import AnnotateOptions
from .sentence import skeletons_of
from .store import Store, mask_text, text_mask
from .thresholds import Thresholds

_FAINT = 0.02  # candidates below are dropped, even for messages
_MOST_CANDIDATES = 12
_SUREST = 0.9999  # of a model; 1 is a person's
_TAKEN = 0.5  # IoU with a person's box from which a place is no longer another subject's
Edits = Mapping[tuple[str, int], PictureEdits]  # by triplet and number of the picture


def detect(triplets: Sequence[Annotated], backends: Backends, edits: Edits, limits: Thresholds, store: Store) -> None:
    """Look for every name in every picture, one name per call, and give each subject its box."""
    searches = [
        (one, picture, name) for one in triplets for picture in one.pictures for name in dict.fromkeys(one.raw.names)
    ]

    def job(picture: SeenPicture, name: str) -> tuple[dict, Callable]:
        def look(detector: Any) -> list:
            detections = detector.detect(open_image(picture.path), [name])
            boxes = select([one for one in detections if one.score >= _FAINT], picture.size, _FAINT)[:_MOST_CANDIDATES]
            return [
                [[round(float(edge), 6) for edge in one.box], round(min(float(one.score), _SUREST), 5)] for one in boxes
            ]

        return {"picture": picture.digest, "name": name}, look

    results = store.run("detect", backends.detector, [job(picture, name) for _, picture, name in searches])
    for (_, picture, name), rows in zip(searches, results):
        picture.candidates[name] = [Candidate(tuple(box), score) for box, score in rows]
    for one in triplets:
        for number, picture in enumerate(one.pictures):
            names = one.raw.names if number == 0 else (one.raw.names[number - 1],)
            _assign(picture, names, edits.get((one.raw.name, number), PictureEdits()), limits.detection.score)


def _assign(picture: SeenPicture, names: Sequence[str], edit: PictureEdits, least: float) -> None:
    """Give each name of a picture its box.

    A person's box is the only candidate of its subject. Where a person has corrected anything, the other subjects stay
    where the corrected files showed them, unless a person's box lies there.
    """
    edited_boxes = {index: Candidate(box, 1.0) for index, box in edit.boxes.items()}
    for index, mask in edit.masks.items():
        if index not in edited_boxes and (bounds := mask_box(mask)):
            edited_boxes[index] = Candidate(bounds, 1.0)
    fixed_boxes = {
        index: one
        for index, one in edit.file_boxes.items()
        if all(overlap(one.box, other.box) < _TAKEN for other in edited_boxes.values())
    } | edited_boxes
    candidates = [
        [fixed_boxes[index]] if index in fixed_boxes else picture.candidates.get(name, [])
        for index, name in enumerate(names)
    ]
    for subject, of_name, choice in zip(picture.subjects, candidates, choose(candidates, least)):
        subject.detection, subject.box = choice, choice.box if choice else None
        subject.best = max((one.score for one in of_name), default=0.0)


def cut(triplets: Sequence[Annotated], backends: Backends, edits: Edits, store: Store) -> None:
    """Cut out all subjects found; boxes become their tight ones unless a person drew them."""
    keys = [(one, number) for one in triplets for number in range(len(one.pictures))]
    work = [(one.pictures[number], edits.get((one.raw.name, number), PictureEdits())) for one, number in keys]
    work = [(picture, edit) for picture, edit in work if any(subject.box for subject in picture.subjects)]

    def job(picture: SeenPicture) -> tuple[dict, Callable]:
        boxes = [subject.box for subject in picture.subjects if subject.box]

        def look(segmenter: Any) -> list:
            rows = segmenter.cut(open_image(picture.path), boxes)
            return [[None if mask is None else mask_text(clean(mask)), quality] for mask, quality in rows]

        return {"picture": picture.digest, "boxes": boxes}, look

    results: list[Any] = [None] * len(work)
    if backends.segmenter is not None:
        results = store.run("cut", backends.segmenter, [job(picture) for picture, _ in work])
    for (picture, edit), rows in zip(work, results):
        boxed_subjects = [subject for subject in picture.subjects if subject.box]
        for subject, (text, quality) in zip(boxed_subjects, rows or ()):
            if text and (mask := text_mask(text)).any():
                subject.mask, subject.quality = mask, quality
        for index, subject in enumerate(picture.subjects):
            if index in edit.masks:
                subject.mask, subject.quality = edit.masks[index], None
            if subject.mask is not None and index not in edit.boxes:
                subject.box = mask_box(subject.mask) or subject.box


def pose(
    triplets: Sequence[Annotated],
    backends: Backends,
    edits: Edits,
    limits: Thresholds,
    options: AnnotateOptions,
    store: Store,
) -> None:
    """Find joints of all subjects in the order of their kind, with the visibility that their own mask gives."""
    for skeleton, part in backends.poses.items():
        work = [
            (picture, subject)
            for one in triplets
            for number, picture in enumerate(one.pictures)
            for index, subject in enumerate(picture.subjects)
            if subject.box and skeleton in skeletons_of(one.kinds[index if number == 0 else number - 1])
        ]
        jobs = []
        for picture, subject in work:
            others = [other.mask for other in picture.subjects if other is not subject and other.mask is not None]
            hidden = others if options.hide_others else []
            jobs.append(_pose_job(picture, subject.box, hidden))
        for (_, subject), rows in zip(work, store.run(f"pose-{skeleton}", part, jobs)):
            subject.scored[skeleton] = np.array(rows)
    for one in triplets:
        one.skeletons = [_skeleton(one, index, limits) for index in range(len(one.raw.names))]
        for number, picture in enumerate(one.pictures):
            edit = edits.get((one.raw.name, number), PictureEdits())
            for index, subject in enumerate(picture.subjects):
                skeleton = one.skeletons[index if number == 0 else number - 1]
                if subject.box and skeleton in subject.scored:
                    scored = subject.scored[skeleton]
                    subject.joints = visibility(scored, subject.mask, subject.box, picture.size, limits.detection)
                for joint, place in edit.joints.get(index, {}).items():
                    subject.joints[joint] = place


def _pose_job(picture: SeenPicture, box: Box, hidden: Sequence[np.ndarray]) -> tuple[dict, Callable]:
    def look(model: Any) -> list:
        image = open_image(picture.path)
        return np.round(model.joints(paint_over(image, hidden) if hidden else image, [box])[0], 6).tolist()

    return {"picture": picture.digest, "box": box, "hidden": [mask_text(mask) for mask in hidden]}, look


def _skeleton(one: Annotated, index: int, limits: Thresholds) -> str:
    """Choose of two possible orders the one whose joints on the subject score higher in both pictures together."""
    possible = skeletons_of(one.kinds[index])
    concept = one.pictures[index + 1]
    appearances = [(one.target, one.target.subjects[index]), (concept, concept.subjects[0])]
    scores = {
        skeleton: sum(
            score_inside(subject.scored[skeleton], subject.mask, subject.box, picture.size, limits.detection)
            for picture, subject in appearances
            if subject.box and skeleton in subject.scored
        )
        for skeleton in possible
    }
    return max(possible, key=lambda skeleton: scores[skeleton], default=NO_SKELETON)


def embed(triplets: Sequence[Annotated], backends: Backends, edits: Edits, limits: Thresholds, store: Store) -> None:
    """Embed all subjects; of places that fit several names, each name is then given the one with its looks."""
    if backends.embedder is None:
        return
    pictures = [picture for one in triplets for picture in one.pictures]
    work = [(picture, subject) for picture in pictures for subject in picture.subjects if subject.box]

    def job(picture: SeenPicture, box: Box, mask: np.ndarray | None) -> tuple[dict, Callable]:
        def look(encoder: Any) -> list:
            vector = encoder.pictures([crop(open_image(picture.path), box, mask)])
            return torch.nn.functional.normalize(vector, dim=-1)[0].tolist()

        return {"picture": picture.digest, "box": box, "mask": None if mask is None else mask_text(mask)}, look

    jobs = [job(picture, subject.box, subject.mask) for picture, subject in work]
    for (_, subject), vector in zip(work, store.run("embed", backends.embedder, jobs)):
        subject.vector = np.array(vector)
    for one in triplets:
        if not edits.get((one.raw.name, 0)):  # unless a person has assigned the names
            _tell_apart(one, limits.detection.score)


def _tell_apart(one: Annotated, least: float) -> None:
    """Exchange subjects of the target whose places fit each other's names too, if their looks then fit better."""
    subjects = one.target.subjects
    looks = [concept.subjects[0].vector for concept in one.pictures[1:]]
    if any(vector is None for vector in (*looks, *(subject.vector for subject in subjects))):
        return

    def fits(subject: SeenSubject, name: str) -> bool:
        candidates = one.target.candidates.get(name, ())
        return any(other.score >= least and overlap(other.box, subject.detection.box) > 0.85 for other in candidates)

    orders = [
        order
        for order in permutations(subjects)
        if all(
            subject is own or fits(subject, name) and one.kinds[subjects.index(subject)] == kind
            for subject, own, name, kind in zip(order, subjects, one.raw.names, one.kinds)
        )
    ]
    one.target.subjects = list(
        max(orders, key=lambda order: sum(float(subject.vector @ look) for subject, look in zip(order, looks)))
    )
