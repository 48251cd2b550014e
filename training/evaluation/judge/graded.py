"""Grades from 0 to 10, for tables that want them: references first, then the picture; only JSON is accepted.

An answer that cannot be read gets one more try; then it is counted as unparsable and left out of every mean. It never
becomes a middle or a random grade.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..prompts import Entry
from .answers import Answers

AGAIN = "Answer only with the JSON."
LOWEST, HIGHEST = 0, 10


@dataclass(frozen=True)
class Grades:
    """Grades of one picture.

    Attributes:
        grades: `relation`, `identity_1` ... for each reference, `quality`; None if the answer was unparsable twice.
        answer: the last answer, unparsed.
    """

    grades: dict[str, float] | None
    answer: str


def grading_text(entry: Entry) -> str:
    """Return the judge's instructions, in five lines."""
    references = len(entry.references)
    keys = ["relation", *(f"identity_{number}" for number in range(1, references + 1)), "quality"]
    first = {0: "You see one picture.", 1: "The first picture shows a subject, the last one is to be graded."}.get(
        references, f"The first {references} pictures show one subject each, the last one is to be graded."
    )
    identity = "identity_N: does it show the subject of picture N, with its colours, pattern and shape? "
    return "\n".join(
        [
            first,
            f'It was made for: "{entry.prompt}"',
            "relation: does what is described happen between the subjects described? "
            + (identity if references else "")
            + "quality: is it free of artefacts?",
            f"Grade each from {LOWEST} (not at all) to {HIGHEST} (perfectly).",
            "Answer only with JSON: {" + ", ".join(f'"{key}": {LOWEST}-{HIGHEST}' for key in keys) + "}",
        ]
    )


def parse_grades(answer: str, references: int) -> dict[str, float] | None:
    """Return the grades of an answer, or None unless it holds exactly one JSON object with exactly the right keys.

    Args:
        answer: may wrap the object in words or a code block.
        references: number of identities to be graded.
    """
    keys = {"relation", "quality", *(f"identity_{number}" for number in range(1, references + 1))}
    objects = re.findall(r"\{[^{}]*\}", answer)
    if len(objects) != 1:
        return None
    try:
        grades = json.loads(objects[0])
    except ValueError:
        return None
    if set(grades) != keys or not all(
        isinstance(grade, int | float) and not isinstance(grade, bool) and LOWEST <= grade <= HIGHEST
        for grade in grades.values()
    ):
        return None
    return {key: float(grade) for key, grade in grades.items()}


def grade_pictures(
    entries: Sequence[Entry], answers: Answers, progress: Callable[[Sequence], Sequence] = lambda items: items
) -> list[Grades]:
    """Grade every picture."""
    return [grade_picture(entry, answers) for entry in progress(entries)]


def grade_picture(entry: Entry, answers: Answers) -> Grades:
    """Grade one picture, asking at most twice."""
    pictures, text = [*entry.references, entry.picture], grading_text(entry)
    answer = ""
    for wording in (text, f"{text}\n{AGAIN}"):
        answer = answers.text(pictures, wording)
        grades = parse_grades(answer, len(entry.references))
        if grades is not None:
            return Grades(grades, answer)
    return Grades(None, answer)
