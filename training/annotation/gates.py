"""Judge triplets by gates: each gate passes, warns or rejects on its worst subject, and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from ..common.image_files import open_image
from ..data.skeletons import NO_SKELETON, SKELETONS
from .annotated import Annotated, SeenPicture, SeenSubject
from .choose import SAME_ANIMAL, area, overlap, rival, second
from .measures import counted_in_both, crop_likeness, grey_crop, grey_picture, likeness, pose_distance
from .report import NOT_JUDGED, PASS, REJECT, REJECTED, WARN, GateResult
from .thresholds import Limits, Thresholds

_SURE_CROP = 0.92  # crops about a box that is right reach .94 to .97, pictures of another subject .88
Measured = tuple[float | None, str]  # a number, and what it says of whom


def judge(one: Annotated, everyone: Sequence[Annotated], limits: Thresholds) -> dict[str, GateResult]:
    """Judge a triplet by every gate.

    Args:
        one: the triplet.
        everyone: all triplets; subjects of one name are compared across them.
        limits: the gates' numbers.
    """
    results = {"found": _found(one, limits)}
    if not one.complete():
        return results
    results["alone"] = _alone(one, limits)
    gates: dict[str, Iterable[Measured]] = {
        "box": _boxes(one),
        "mask": _each(one, lambda subject, _: subject.quality, "the segmenter trusts its mask of {name} {value:.2f}"),
        "area": _each(one, lambda subject, _: area(subject.box), "{name} fills {value:.3f} of the picture"),
        "identity": _identity(one),
        "identity_margin": _margins(one, everyone),
        "pose_differs": _poses(one),
        "joints": _joints(one),
        "picture_px": (
            (float(min(picture.size)), f"{_file(one, number)}: {min(picture.size)} pixels on the shorter side")
            for number, picture in enumerate(one.pictures)
        ),
        "subject_px": _each(one, _longer_side, "{name} is {value:.0f} pixels long"),
        "relation": [
            (one.reader_scores.get("relation"), f'{one.raw.name}/target.png: "{one.predicate}" is not to be seen')
        ],
        "relation_margin": _above_decoys(one),
    }
    for gate, measured in gates.items():
        results[gate] = _worst(list(measured), getattr(limits, gate), below=True)
    for gate, measured in {"copy_paste": _copies(one), "unchanged": _unchanged(one)}.items():
        results[gate] = _worst(measured, getattr(limits, gate), below=False)
    return results


def _worst(measured: Sequence[Measured], limits: Limits, below: bool) -> GateResult:
    """Judge the worst of several numbers; `below` says on which side of the limits bad ones lie."""
    numbers = [(value, text) for value, text in measured if value is not None]
    if not numbers:
        return GateResult(NOT_JUDGED, None, limits.reject)
    value, text = (min if below else max)(numbers)
    bad: Callable[[float], bool] = (lambda limit: value < limit) if below else (lambda limit: value >= limit)
    status = REJECT if bad(limits.reject) else WARN if bad(limits.warn) else PASS
    sign, limit = "<" if below else ">=", limits.reject if status == REJECT else limits.warn
    sentence = "" if status == PASS else f"{text} ({value:.2f} {sign} {limit:g})."
    return GateResult(status, round(float(value), 4), limits.reject, sentence)


def _file(one: Annotated, number: int, ending: str = "png") -> str:
    return f"{one.raw.name}/{one.raw.stems()[number]}.{ending}"


def _each(one: Annotated, number: Callable[[SeenSubject, SeenPicture], float | None], text: str) -> Iterable[Measured]:
    """Measure every subject in every picture."""
    for index, picture in enumerate(one.pictures):
        names = one.raw.names if index == 0 else (one.raw.names[index - 1],)
        for name, subject in zip(names, picture.subjects):
            value = number(subject, picture)
            yield value, "" if value is None else f"{_file(one, index)}: " + text.format(name=name, value=value)


def _longer_side(subject: SeenSubject, picture: SeenPicture) -> float:
    x0, y0, x1, y1 = subject.box
    return max((x1 - x0) * picture.size[0], (y1 - y0) * picture.size[1])


def _found(one: Annotated, limits: Thresholds) -> GateResult:
    """Reject a triplet in which a name has no box, and warn of a rival in the target."""
    least, texts, values = limits.detection.score, [], []
    for number, picture in enumerate(one.pictures):
        names = one.raw.names if number == 0 else (one.raw.names[number - 1],)
        for name, subject in zip(names, picture.subjects):
            values.append(subject.best)
            if subject.box:
                continue
            file, edit = _file(one, number), f"{REJECTED}/{_file(one, number, 'json')}"  # it goes there
            if subject.best >= least:
                others = " and ".join(f'"{other}"' for other in _of_one_place(name, names, picture))
                texts.append(f"{file}: {others} both lie on one animal; draw their boxes in {edit}, or rename one.")
            else:
                texts.append(
                    f'{file}: no "{name}" found (best {subject.best:.2f}, needed {least:.2f}). Name it as a child '
                    f'would ("animal"), draw its box in {edit}, or pass --detector.'
                )
    value = round(min(values), 4)
    if texts:
        return GateResult(REJECT, value, least, " ".join(dict.fromkeys(texts)))
    boxes = [subject.box for subject in one.target.subjects]
    for name, subject in zip(one.raw.names, one.target.subjects):
        others = [box for box in boxes if box is not subject.box]
        close = rival(subject.detection, one.target.candidates.get(name, ()), others, limits.detection.rival)
        if close and subject.detection.score < 1:
            text = f'{_file(one, 0)}: another "{name}" scores {close.score:.2f} beside {subject.detection.score:.2f}.'
            return GateResult(WARN, value, least, text)
    return GateResult(PASS, value, least)


def _of_one_place(name: str, names: Sequence[str], picture: SeenPicture) -> list[str]:
    """List a name that got no box, and those whose box lies where its best candidate is; all if that is unclear."""
    best = max(picture.candidates.get(name, ()), key=lambda candidate: candidate.score, default=None)
    same_place = [
        other
        for other, subject in zip(names, picture.subjects)
        if other == name or best and subject.detection and overlap(subject.detection.box, best.box) >= SAME_ANIMAL
    ]
    return same_place if len(same_place) > 1 else list(names)


def _alone(one: Annotated, limits: Thresholds) -> GateResult:
    """Reject photographs of more than one subject."""
    for number, (name, _, concept, subject) in enumerate(one.pairs(), 1):
        file, edit = _file(one, number), f"{REJECTED}/{_file(one, number, 'json')}"  # it goes there
        if subject.detection.score == 1.0:
            continue  # a person has drawn whom it is of
        least = max(limits.detection.score, limits.detection.second_score * subject.detection.score)
        twin = second(subject.detection, concept.candidates.get(name, ()), least, limits.detection.second)
        if twin:
            share = area(twin.box) / area(subject.detection.box)
            text = f"{file}: two of {name} (the second {share:.2f} of the first's size); crop it or mark one in {edit}."
            return GateResult(REJECT, round(share, 4), limits.detection.second, text)
        for other in dict.fromkeys(one.raw.names):
            for candidate in concept.candidates.get(other, ()) if other != name else ():
                if candidate.score >= least and overlap(candidate.box, subject.detection.box) < 0.5:
                    if area(candidate.box) >= limits.detection.second * area(subject.detection.box):
                        text = f'{file}: a "{other}" is in it too; expected {name} alone. Crop it or draw it anew.'
                        return GateResult(REJECT, candidate.score, least, text)
    return GateResult(PASS, 0.0)


def _boxes(one: Annotated) -> Iterable[Measured]:
    """Measure how well the masks fill the detector's boxes; boxes drawn by people are right."""

    def fit(subject: SeenSubject, _: SeenPicture) -> float | None:
        by_detector = subject.mask is not None and subject.detection.score < 1
        return overlap(subject.box, subject.detection.box) if by_detector else None

    return _each(one, fit, "mask and box of {name} differ, IoU {value:.2f}")


def _identity(one: Annotated) -> Iterable[Measured]:
    for name, in_target, _, concept in one.pairs():
        if in_target.vector is not None and concept.vector is not None:
            yield float(in_target.vector @ concept.vector), f"{one.raw.name}: {name} does not look like its photograph"


def _margins(one: Annotated, everyone: Sequence[Annotated]) -> Iterable[Measured]:
    """Measure how much nearer a subject is to its own photograph than to others, of its name elsewhere too."""
    for index, (name, in_target, _, concept) in enumerate(one.pairs()):
        if in_target.vector is None or concept.vector is None:
            continue
        others = [
            (other.vector, f'"{other_name}"' if triplet is one else f"the {other_name} of {triplet.raw.name}")
            for triplet in everyone
            for number, (other_name, _, _, other) in enumerate(triplet.pairs())
            if other.vector is not None and (number != index if triplet is one else other_name == name)
        ]
        own = float(in_target.vector @ concept.vector)
        margins = [(own - float(in_target.vector @ vector), whom) for vector, whom in others]
        if margins:
            margin, whom = min(margins)
            yield margin, f"{one.raw.name}: {name} is hardly nearer to its photograph than to {whom}"


def _poses(one: Annotated) -> Iterable[Measured]:
    for index, (name, in_target, concept_picture, concept) in enumerate(one.pairs()):
        if one.skeletons[index] != NO_SKELETON:
            target_joints, concept_joints = (
                subject.joints * np.array([*picture.size, 1.0])
                for subject, picture in ((in_target, one.target), (concept, concept_picture))
            )
            yield (
                pose_distance(target_joints, concept_joints, SKELETONS[one.skeletons[index]]),
                f'{one.raw.name}: "{name}" stands as in the target: the LoRA would learn to copy. Draw it anew in '
                "another pose",
            )


def _joints(one: Annotated) -> Iterable[Measured]:
    for index, (name, in_target, _, concept) in enumerate(one.pairs()):
        if one.skeletons[index] in in_target.scored or in_target.joints.any():
            count = float(counted_in_both(in_target.joints, concept.joints))
            yield count, f"{one.raw.name}: few joints of {name} count"


def _above_decoys(one: Annotated) -> Iterable[Measured]:
    relation, decoy = one.reader_scores.get("relation"), one.reader_scores.get("decoy")
    if relation is not None and decoy is not None:
        yield relation - decoy, f"{one.raw.name}/target.png: a decoy is as likely as {one.predicate}"


@lru_cache(maxsize=64)
def _open_cached(path: str, digest: str) -> Image.Image:
    return open_image(path)


def _copies(one: Annotated) -> list[Measured]:
    """Compare each photograph with its subject in the target, cut out by its mask, and as a crop about any subject.

    About the others too, since a detector may have taken one for another, if it is a crop for sure.
    """
    target = _open_cached(str(one.target.path), one.target.digest)
    measured = []
    for name, in_target, picture, concept in one.pairs():
        image = _open_cached(str(picture.path), picture.digest)
        cut_out = grey_crop(target, in_target.box, in_target.mask)
        values = [likeness(cut_out, grey_crop(image, concept.box, concept.mask))]
        for subject in one.target.subjects:
            value = crop_likeness(target, subject.box, image)
            if subject is in_target or value >= _SURE_CROP:
                values.append(value)
        measured.append(
            (max(values), f"{one.raw.name}: {name}'s photograph is a copy of the target's pixels; draw it anew")
        )
    return measured


def _unchanged(one: Annotated) -> list[Measured]:
    target = grey_picture(_open_cached(str(one.target.path), one.target.digest))
    return [
        (
            likeness(target, grey_picture(_open_cached(str(picture.path), picture.digest))),
            f"{one.raw.name}: {name}'s photograph is the target unchanged; draw it anew",
        )
        for name, _, picture, _ in one.pairs()
    ]
