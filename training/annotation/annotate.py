"""Annotate in order: pictures in, every stage with one model in memory, gates, files out; people's edits on top."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.user_files import read_json_object

from ..common.atomic_io import check_writable, write_text
from ..common.cli import TrainingAborted
from ..common.errors import UserErrors, all_or_faults
from ..common.folder_lock import FolderInUse, locked
from ..common.image_files import open_image
from . import reading, stages
from .annotated import Annotated, SeenPicture, SeenSubject
from .backends import Backends
from .gates import judge
from .options import AnnotateOptions
from .raw import RawTriplet
from .readback import STATE, Edits, read_decisions, read_edits, state_rows
from .report import Report, TripletReport
from .sentence import predicate_of, sentence_of, skeletons_of, usable_place
from .store import FOLDER, Store, pixels_hash
from .thresholds import Thresholds
from .write import home_of, write_all

log = logging.getLogger(__name__)
_PACKAGES = ("torch", "transformers", "pillow", "numpy", "scipy")


def annotate_folder(
    triplets: Sequence[RawTriplet],
    out: Path,
    options: AnnotateOptions,
    backends: Backends,
    limits: Thresholds,
    coco: Path | None = None,
) -> Report:
    """Annotate raw triplets into a folder; what a person has edited there stays.

    Args:
        triplets: checked.
        out: new, or of an earlier run.
        options, backends, limits: see there.
        coco: edited COCO keypoints; None looks at the folder's own.

    Raises:
        UserErrors: of files that people edited; a model that cannot be opened.
        TrainingAborted: a model failed; finished results stay.
    """
    # Check the folder and the models before anything is read.
    check_out(out)
    all_or_faults(*(part.check for part in backends.parts().values()))
    for role, part in backends.parts().items():
        if part.note:
            log.info("%s %s (%s): %s", role, part.name, part.licence, part.note)
    with _locked(out):
        annotated = all_or_faults(*(partial(_open_triplet, raw) for raw in triplets))
        # A person's edits and decisions come before the models.
        edits, decisions = all_or_faults(
            lambda: read_edits(out, annotated, coco), lambda: read_decisions(out, annotated)
        )
        seconds = _run(annotated, edits, backends, limits, options, Store(out / FOLDER))

        # Judge the triplets, and write down who drew and who annotated them.
        models = {role: {"name": part.name, "licence": part.licence} for role, part in backends.parts().items()}
        for one in annotated:
            own = options.origin.get(one.raw.name) or one.raw.origin
            one.origin = {**own, "annotated_by": {role: model["name"] for role, model in models.items()}}
        verdicts = [
            TripletReport(
                name, judge(one, annotated, limits), decisions.get(name, ""), one.complete(), tuple(one.notes)
            )
            for name, one in ((one.raw.name, one) for one in annotated)
        ]
        report = Report(tuple(verdicts), models, limits.model_dump(), seconds, _versions())
        _save_state(out, annotated, options)
        write_all(out, annotated, report, edits, options)
    return report


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock a folder as `locked` does, for commands."""
    try:
        with locked(out):
            yield
    except FolderInUse as error:
        raise UserErrors(str(error)) from error


def check_out(out: Path) -> None:
    """Look whether a folder can be annotated into; raw pictures may lie in it.

    Raises:
        UserErrors: it holds triplets of another origin, or cannot be written to.
    """
    try:
        check_writable(out)
    except ValueError as error:
        raise UserErrors(str(error)) from error
    others = [name for name in ("triplets.jsonl", "prompts.json", "coco_keypoints.json") if (out / name).exists()]
    if others and not (out / FOLDER / STATE).is_file():
        raise UserErrors(
            f"{out} holds {others[0]} that was not annotated here, or its {FOLDER} is gone; choose another folder."
        )


def read_state(out: Path) -> tuple[list[RawTriplet], dict[str, Any]]:
    """Read what an earlier run has annotated, with the pictures it wrote, and its options.

    Raises:
        UserErrors: there was none.
    """
    path = out / FOLDER / STATE
    if not path.is_file():
        raise UserErrors(
            f"{out}: no annotation to go on with; expected the OUT of python -m training.annotate RAW OUT."
        )
    try:
        state = read_json_object(path)
    except ValueError as error:
        raise UserErrors(str(error)) from error
    triplets = []
    for name, row in state["triplets"].items():
        facts = tuple(row["names"]), row["prompt"], row["origin"], row["predicate"], tuple(row.get("kinds", ()))
        raw = RawTriplet(name, Path(), (), *facts)
        target, *concepts = (home_of(out, name) / f"{stem}.png" for stem in raw.stems())
        triplets.append(replace(raw, target=target, concepts=tuple(concepts)))
    return triplets, state["options"]


def _save_state(out: Path, annotated: Sequence[Annotated], options: AnnotateOptions) -> None:
    rows = {
        one.raw.name: {
            "names": one.raw.names,
            "prompt": one.raw.prompt,
            "predicate": one.raw.predicate,
            "kinds": one.raw.kinds,
            "origin": one.raw.origin | dict(options.origin.get(one.raw.name, {})),
            "skeletons": one.skeletons,
            "found": [
                subject.detection and [subject.detection.box, subject.detection.score]
                for subject in one.target.subjects
            ],
        }
        for one in annotated
    }
    saved_options = {key: value for key, value in asdict(options).items() if key != "origin"}
    absent = {name: row for name, row in state_rows(out).items() if name not in rows and home_of(out, name).is_dir()}
    saved_options["thresholds"] = None if options.thresholds is None else str(options.thresholds.absolute())
    state = {"options": saved_options, "triplets": rows, "absent": absent}
    write_text(out / FOLDER / STATE, json.dumps(state, ensure_ascii=False))


def _open_triplet(raw: RawTriplet) -> Annotated:
    pictures = []
    for number, path in enumerate(raw.pictures()):
        image = open_image(path)
        subjects = [SeenSubject() for _ in raw.names] if number == 0 else [SeenSubject()]
        pictures.append(SeenPicture(path, pixels_hash(image), image.size, subjects))
    return Annotated(raw, pictures)


def _run(
    annotated: list[Annotated],
    edits: Edits,
    backends: Backends,
    limits: Thresholds,
    options: AnnotateOptions,
    store: Store,
) -> dict[str, float]:
    """Run all stages; returns seconds by stage."""
    places: dict[str, str] = {}
    steps = {
        "kinds": lambda: _kinds(annotated, backends, options, store),
        "detect": lambda: stages.detect(annotated, backends, edits, limits, store),
        "cut": lambda: stages.cut(annotated, backends, edits, store),
        "pose": lambda: stages.pose(annotated, backends, edits, limits, options, store),
        "embed": lambda: stages.embed(annotated, backends, edits, limits, store),
        "read": lambda: places.update(reading.read(annotated, backends, options, store)),
    }
    seconds = {}
    for name, step in steps.items():
        began = time.monotonic()
        try:
            step()
        except ValueError as error:
            raise UserErrors(str(error)) from error
        except RuntimeError as error:
            raise TrainingAborted(
                f"{name}: the model failed ({error}). What is finished stays; the same command goes on."
            ) from error
        seconds[name] = round(time.monotonic() - began, 3)
    without_place = 0
    for one in annotated:
        if one.raw.predicate:
            one.prompt, one.predicate = one.raw.prompt, one.raw.predicate
            continue
        place = usable_place(places.get(one.raw.name, ""), one.raw.names)
        one.predicate = predicate_of(options.relation)
        one.prompt, note = sentence_of(one.raw.names, options.relation, options.say, one.raw.prompt, place)
        one.notes += [note] if note else []
        # People may name a place in a sentence or a template of theirs; a {place} that stays empty names none.
        by_people = one.prompt == one.raw.prompt or (options.say and "{place}" not in options.say)
        without_place += not (place or by_people)
    if without_place:
        log.warning(
            "Sentences without a place: %d of %d. A relation is learnt better with one: give each triplet a "
            "prompt.txt, or a --reader that sees the place.",
            without_place,
            len(annotated),
        )
    return seconds


def _kinds(annotated: Sequence[Annotated], backends: Backends, options: AnnotateOptions, store: Store) -> None:
    """Decide what each subject is; warn of kinds of nobody, and of subjects whose joints no model looks for."""
    reading.kinds(annotated, backends, options, store)
    kinds = {name: kind for one in annotated for name, kind in zip(one.raw.names, one.kinds)}
    for name in sorted(options.kinds.keys() - kinds.keys()):
        log.warning("--kind %s: no subject of this name here; they are %s.", name, ", ".join(sorted(kinds)))
    posed = [(name, skeletons_of(kind)) for name, kind in kinds.items()]
    lacking = sorted(name for name, orders in posed if orders and backends.poses.keys().isdisjoint(orders))
    if lacking:
        log.warning("no joints of %s: no model looks for them (--pose-animal, --pose-person).", ", ".join(lacking))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
