"""A folder of pictures measured with everything that was asked for: scores, subjects, judge, grades."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..common.cli import say
from ..common.errors import Faults
from .assignment.faces import not_measured
from .columns import Row
from .predicate_parser import MODEL, Parser
from .prompts import Entry

CLIP, DINO = "openai/clip-vit-base-patch32", "facebook/dino-vits16"  # DreamBooth's (arXiv:2208.12242)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say what is measured with what."""
    add = parser.add_argument
    add("--clip", default=CLIP,
        help="a folder of transformers or a hub's owner/name, an open_clip architecture, or miniworld")
    add("--clip-weights", default="", help="of an open_clip architecture: a file or one of open_clip's tags; a file of "
        "OpenAI's weights needs --clip ViT-B-32-quickgelu")
    add("--dino", help=f"a folder of transformers or a hub's owner/name, or none; {DINO}, but none with --clip "
        "miniworld")
    add("--detector", default=NONE, help="who is where: a Grounding DINO, OWLv2 or SAM 3 of transformers, or miniworld")
    add("--encoder", default="", help="looks of crops: a DINOv2, DINOv3, CLIP or SigLIP of transformers, or miniworld")
    add("--segmenter", default=NONE, help="cuts subjects out of boxes: a SAM or SAM 2 of transformers")
    add("--floor", type=float, help="cosine at or below which a detection is nobody; measured from the references")
    add("--judge", default=NONE, help="whether it happened: an image-text-to-text model of transformers, or miniworld")
    add("--judge-revision", default="main", help="commit of the judge on the hub, so that answers can be repeated")
    add("--judge-accuracy", type=Path, help="accuracy.json of 'judge --labels': shares corrected for its errors")
    add("--no-mirror", action="store_true", help="do not ask about mirrored pictures, which shows the judge's noise")
    add("--grades", action="store_true", help="let the judge grade from 0 to 10 as well")
    add("--spacy", default=MODEL, help="pipeline that finds predicates: a name or a folder")
    add("--batch", type=int, default=32, help="pictures encoded at once")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", choices=DTYPES, default="float32")


@dataclass(frozen=True, eq=False)
class Models:
    """What pictures are measured with; None where a part was not asked for.

    Attributes:
        clip, dino: see `host_diffusers/embedders`.
        subjects: see `assignment/subjects`.
        judge: see `judge/answers`.
        accuracy: the judge's, from labels.
    """

    clip: Any
    dino: Any
    subjects: Any
    judge: Any
    accuracy: Any


@dataclass(frozen=True, eq=False)
class Measured:
    """N pictures, measured.

    Attributes:
        entries, predicates, rows: N each; a row maps the keys of `columns` to values.
        subjects: detections and assignments, or None.
        judge: the judge's facts, or None.
        unparsable: number of grades that could not be read twice; None without grades.
        mass: mean probability of Yes and No together, or None without a judge.
        notes: what was not measured, and why.
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


def all_or_faults(*steps: Callable[[], Any]) -> list[Any]:
    """The results of all steps, or what is wrong with any of them in one report.

    Raises:
        Faults: of every step.
    """
    results, faults = [], []
    for step in steps:
        try:
            results.append(step())
        except Faults as error:
            faults += error.found
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise Faults(faults)
    return results


def model_steps(options: argparse.Namespace) -> list[Callable[[], Any]]:
    """One step for each part of `Models`, in its order; for `all_or_faults`."""
    from ..host_diffusers.embedders import load_clip, load_dino

    dtype = DTYPES[options.dtype]
    dino = options.dino or (NONE if options.clip == "miniworld" else DINO)
    return [
        lambda: load_clip(options.clip, options.clip_weights, options.device, dtype),
        lambda: None if dino == NONE else load_dino(dino, options.device, dtype),
        lambda: None if options.detector == NONE else _open_subjects(options, dtype),
        lambda: None if options.judge == NONE else open_judge_model(options),
        lambda: None if options.judge_accuracy is None else _read_accuracy(options.judge_accuracy),
    ]


def _open_subjects(options: argparse.Namespace, dtype: torch.dtype) -> Any:
    from ..host_diffusers.detectors import open_detector
    from ..host_diffusers.embedders import ENCODER, load_image_encoder
    from ..host_diffusers.segmenters import open_segmenter
    from .assignment.subjects import SubjectModels

    encoder = options.encoder or ("miniworld" if options.detector == "miniworld" else ENCODER)
    parts = all_or_faults(
        lambda: open_detector(options.detector, options.device, dtype),
        lambda: load_image_encoder(encoder, options.device, dtype),
        lambda: None if options.segmenter == NONE else open_segmenter(options.segmenter, options.device, dtype))
    return SubjectModels(*parts)


def open_judge_model(options: argparse.Namespace) -> Any:
    """The judge that `--judge` names.

    Raises:
        ValueError: no such judge.
    """
    from ..host_diffusers.vision_language import open_judge

    return open_judge(options.judge, options.device, DTYPES[options.dtype], options.judge_revision)


def _read_accuracy(path: Path) -> Any:
    from .judge.accuracy import JudgeAccuracy

    return JudgeAccuracy.read(path)


def measure_pictures(entries: Sequence[Entry], predicates: Sequence[str | None], models: Models,
                     options: argparse.Namespace, memory: Path | None) -> Measured:
    """Measure pictures.

    Args:
        entries, predicates: N each.
        models: see `Models`.
        options: of `add_arguments`.
        memory: where the judge's answers are remembered.

    Raises:
        Faults: pictures that cannot be decoded, all of them.
    """
    from .score_images import score_pictures

    began = time.monotonic()
    rows: list[dict[str, float | None]] = [dict(row) for row in score_pictures(
        entries, predicates, models.clip, models.dino, options.batch)]
    subjects, notes = None, []
    if models.subjects is None:
        notes.append("who is where: not measured: needs --detector.")
    else:
        from .assignment.subjects import measure_subjects

        subjects = measure_subjects(entries, models.subjects, options.floor,
                                    lambda items: tqdm(items, desc="subjects", unit=""))
        for row, own in zip(rows, subjects.rows):
            row |= own.measures.table() if own else {}
        lacking = sum(own is None for own in subjects.rows)
        if lacking:
            notes.append(f"who is where: {lacking} pictures not measured: needs 'names' and 'references'.")
        if not any(entry.boxes for entry in entries):
            notes.append("swap, misplaced, in place: not measured: needs 'boxes'.")
        if not_measured():
            notes.append(f"ID-Sim (UMO), ID-Conf (UMO), Multi-ID (MultiHuman): {not_measured()}.")
    judge, unparsable, mass = None, None, None
    if models.judge is None:
        notes.append("whether it happened: not measured: needs --judge.")
    else:
        judge, unparsable, mass = _judge_into(rows, entries, predicates, models.judge, options, memory)
    encoders = {"CLIP": models.clip.name} | ({"DINO": models.dino.name} if models.dino else {})
    return Measured(entries, predicates, rows, subjects, judge, unparsable, mass, tuple(notes),
                    time.monotonic() - began, encoders)


def _judge_into(rows: list[dict[str, float | None]], entries: Sequence[Entry], predicates: Sequence[str | None],
                judge: Any, options: argparse.Namespace, memory: Path | None
                ) -> tuple[dict[str, Any], int | None, float | None]:
    """Write verdicts and grades into the rows."""
    from .judge.answers import Answers
    from .judge.graded import grade_pictures
    from .judge.verdicts import judge_pictures

    answers = Answers(judge, memory)
    verdicts = judge_pictures(entries, predicates, answers, not options.no_mirror,
                              lambda items: tqdm(items, desc="judge", unit=""))
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
    return {"grade_relation": grades["relation"], "grade_quality": grades["quality"],
            "grade_identity": sum(identities) / len(identities) if identities else None}


def find_predicates(entries: Sequence[Entry], model: str) -> list[str | None]:
    """The given ones, and spaCy's for the rest; None where there is no verb, with a message.

    Raises:
        Faults: spaCy is needed and not installed.
    """
    parser = None if all(entry.relation for entry in entries) else Parser(model)
    found = [entry.relation or parser.predicate(entry.prompt, entry.names, entry.subjects) for entry in entries]
    lines = [str(entry.line) for entry, predicate in zip(entries, found) if not predicate]
    if lines:
        say(f"no predicate found in {len(lines)} of {len(entries)} prompts (lines {', '.join(lines[:10])}"
            f"{' ...' if len(lines) > 10 else ''}): CLIP-R leaves them out. Give 'relation' there.")
    return found
