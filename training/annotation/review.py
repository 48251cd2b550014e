"""Write the review page: every triplet with its annotation drawn on it, every gate's number beside its threshold."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.skeletons import SKELETONS
from .annotated import Annotated
from .joints import NOWHERE
from .labelme import LabelledSubject
from .masks import outlines
from .report import Report

_PAGE = Path(__file__).with_name("review.html")


def review_page(
    triplets: Sequence[Annotated], report: Report, pictures: Mapping[str, Sequence[LabelledSubject]]
) -> str:
    """Make the page; it shows pictures by their paths relative to itself and needs no server.

    Args:
        triplets, report: as they are written.
        pictures: by file, relative to the page, in the order of the triplets.
    """
    files = iter(pictures.items())
    rows = []
    for one, verdict in zip(triplets, report.triplets):
        rows.append(
            {
                "name": verdict.name,
                "accepted": verdict.accepted,
                "decision": verdict.decision,
                "prompt": one.prompt,
                "notes": list(verdict.notes),
                "gates": [{"name": name, **asdict(gate)} for name, gate in verdict.gates.items()],
                "pictures": [_picture(one, number, *next(files)) for number in range(len(one.pictures))],
            }
        )
    data = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")  # a prompt may not end the script
    title = f"{len(report.accepted)} of {len(rows)} triplets accepted"
    return _PAGE.read_text(encoding="utf-8").replace("@TITLE@", html.escape(title)).replace("@ROWS@", data)


def _picture(one: Annotated, number: int, file: str, subjects: Sequence[LabelledSubject]) -> dict[str, Any]:
    width, height = one.pictures[number].size
    caption = "target" if number == 0 else one.raw.names[number - 1]
    return {
        "file": file,
        "size": [width, height],
        "caption": caption,
        "first": max(0, number - 1),
        "subjects": [_subject(subject, width, height) for subject in subjects],
    }


def _subject(subject: LabelledSubject, width: int, height: int) -> dict[str, Any]:
    """Describe a subject in pixels."""
    joints = [[round(x * width, 1), round(y * height, 1), int(v)] for x, y, v in subject.joints.tolist()]
    bones = SKELETONS[subject.skeleton].bones if subject.skeleton in SKELETONS else ()
    box = None
    if subject.box is not None:
        x0, y0, x1, y1 = subject.box
        box = [round(edge, 1) for edge in (x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height)]
    return {
        "box": box,
        "outlines": [] if subject.mask is None else outlines(subject.mask, 1.5),
        "joints": [joint for joint in joints if joint[2] > NOWHERE],
        "bones": [[joints[a][:2], joints[b][:2]] for a, b in bones if min(joints[a][2], joints[b][2]) > 1],
    }
