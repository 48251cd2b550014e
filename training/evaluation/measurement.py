"""Measure a folder of pictures with the models that the options name: scores, subjects, faces, judge, grades."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..common.cli import say
from .assignment.faces import not_measured
from .columns import Row
from .models import Models
from .predicate_parser import Parser
from .prompts import Entry


@dataclass(frozen=True, eq=False)
class Measured:
    """N pictures, measured.

    Attributes:
        entries, predicates, rows: N each; a row maps the keys of `columns` to values.
        subjects: detections and assignments, or None.
        judge: the judge's facts, or None.
        unparsable: number of grades that could not be read twice; None without grades.
        mass: mean probability of Yes and No together, or None without a judge.
        notes: measures left out, and why.
        seconds: time spent on measuring.
    """

    entries: Sequence[Entry]
    predicates: Sequence[str | None]
    rows: Sequence[Row]
    subjects: Any = None
    judge: dict[str, Any] | None = None
    unparsable: int | None = None
    mass: float | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    encoders: dict[str, str] = field(default_factory=dict)


def measure_pictures(
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    models: Models,
    options: argparse.Namespace,
    memory: Path | None,
) -> Measured:
    """Measure pictures.

    Args:
        entries, predicates: N each.
        models: see `Models`.
        options: of `add_arguments`.
        memory: file of the judge's answers.

    Raises:
        UserErrors: pictures that cannot be decoded, all of them.
    """
    from .score_images import score_pictures

    # Score with CLIP and DINO.
    began = time.monotonic()
    rows: list[dict[str, float | None]] = [
        dict(row) for row in score_pictures(entries, predicates, models.clip, models.dino, options.batch)
    ]

    # Detect and assign subjects.
    subjects, notes = None, []
    if models.subjects is None:
        notes.append("who is where: not measured: needs --detector.")
    else:
        from .assignment.subjects import measure_subjects

        subjects = measure_subjects(
            entries, models.subjects, options.floor, lambda items: tqdm(items, desc="subjects", unit="")
        )
        for row, own in zip(rows, subjects.rows):
            row |= own.measures.table() if own else {}
        lacking = sum(own is None for own in subjects.rows)
        if lacking:
            notes.append(f"who is where: {lacking} pictures not measured: needs 'names' and 'references'.")
        if not any(entry.boxes for entry in entries):
            notes.append("swap, misplaced, in place: not measured: needs 'boxes'.")

    # Compare faces, and ask the judge.
    if models.faces is None:
        notes.append(f"faces: {not_measured()}.")
    else:
        _add_faces(rows, entries, models.faces, notes)
    judge, unparsable, mass = None, None, None
    if models.judge is None:
        notes.append("whether it happened: not measured: needs --judge.")
    else:
        judge, unparsable, mass = _add_verdicts(rows, entries, predicates, models.judge, options, memory)
    encoders = {"CLIP": models.clip.name} | ({"DINO": models.dino.name} if models.dino else {})
    encoders |= {"faces": models.faces.name} if models.faces else {}
    return Measured(
        entries, predicates, rows, subjects, judge, unparsable, mass, tuple(notes), time.monotonic() - began, encoders
    )


def _add_faces(rows: list[dict[str, float | None]], entries: Sequence[Entry], encoder: Any, notes: list[str]) -> None:
    """Add the measures of faces to the rows, and a note on pictures without any."""
    from .assignment.face_rows import measure_faces

    face_rows = measure_faces(entries, encoder, lambda items: tqdm(items, desc="faces", unit=""))
    for row, own in zip(rows, face_rows):
        row |= own
    lacking = sum(not own for own in face_rows)
    if lacking:
        notes.append(f"faces: {lacking} pictures not measured: no face is in their references.")


def _add_verdicts(
    rows: list[dict[str, float | None]],
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    judge: Any,
    options: argparse.Namespace,
    memory: Path | None,
) -> tuple[dict[str, Any], int | None, float | None]:
    """Add verdicts and grades to the rows; return the judge's facts, the unparsable grades and the mass."""
    from .judge.answers import Answers
    from .judge.graded import grade_pictures
    from .judge.verdicts import judge_pictures

    answers = Answers(judge, memory)
    verdicts = judge_pictures(
        entries, predicates, answers, not options.no_mirror, lambda items: tqdm(items, desc="judge", unit="")
    )
    masses = [verdict.mass for verdict in verdicts if verdict.mass is not None]
    for row, verdict in zip(rows, verdicts):
        row |= {key: value for key, value in verdict.table().items() if key != "mass"}
    unparsable = None
    if options.grades:
        graded = grade_pictures(entries, answers, lambda items: tqdm(items, desc="grades", unit=""))
        unparsable = sum(one.grades is None for one in graded)
        for row, one in zip(rows, graded):
            row |= _grades(one.grades)
    return dict(judge.facts), unparsable, sum(masses) / len(masses) if masses else None


def _grades(grades: dict[str, float] | None) -> dict[str, float | None]:
    if grades is None:
        return {}
    identities = [value for key, value in grades.items() if key.startswith("identity_")]
    return {
        "grade_relation": grades["relation"],
        "grade_quality": grades["quality"],
        "grade_identity": sum(identities) / len(identities) if identities else None,
    }


def find_predicates(entries: Sequence[Entry], model: str) -> list[str | None]:
    """Return the predicates of the prompts file, and spaCy's for the rest; None without a verb, with a message.

    Raises:
        UserErrors: spaCy is needed and not installed.
    """
    parser = None if all(entry.relation for entry in entries) else Parser(model)
    predicates = [entry.relation or parser.predicate(entry.prompt, entry.names, entry.subjects) for entry in entries]
    lines = [str(entry.line) for entry, predicate in zip(entries, predicates) if not predicate]
    if lines:
        say(
            f"no predicate found in {len(lines)} of {len(entries)} prompts (lines {', '.join(lines[:10])}"
            f"{' ...' if len(lines) > 10 else ''}): CLIP-R leaves them out. Give 'relation' there."
        )
    return predicates
