"""Write the sections of a report below the four scores: subjects, faces, judge, licences, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .benchmarks.catalogue import SETS, licence_of
from .columns import FACE_COLUMNS, GRADE_COLUMNS, JUDGE_COLUMNS, SUBJECT_COLUMNS, Column, estimates, markdown
from .measurement import Measured
from .prompts import Entry

LEAST_MASS = 0.5  # of Yes and No: below it the judge is answering something else


def sections_text(measured: Measured, accuracy: Any) -> str:
    """Write the sections as Markdown.

    Args:
        measured: see `measurement`.
        accuracy: a `JudgeAccuracy`, or None.
    """
    parts = []
    if measured.subjects is not None:
        parts.append(_subjects_text(measured))
    if "faces" in measured.encoders:
        parts.append(_faces_text(measured))
    if measured.judge is not None:
        parts.append(_judge_text(measured, accuracy))
    notes = [*measured.notes, *(f"Licence of {SETS[name].title}: {licence_of(name)}." for name in sets_of(measured))]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    return "".join(f"\n{part}" for part in parts)


def sets_of(measured: Measured) -> list[str]:
    """Return the public sets that the lines name."""
    return [name for name in dict.fromkeys(entry.set for entry in measured.entries) if name in SETS]


def _subjects_text(measured: Measured) -> str:
    subjects = measured.subjects
    table = estimates(measured.entries, measured.rows, SUBJECT_COLUMNS)
    origin = (
        f"the 95 % quantile of the cosines between {subjects.floor_from} different subjects"
        if subjects.floor_from
        else "as given"
    )
    models = "; ".join(f"{role} {name}" for role, name in subjects.models.items())
    return (
        f"**Who is where**\n\n{markdown(table, SUBJECT_COLUMNS)}\n{models}. Floor of the assignment "
        f"{subjects.floor:.3f}: {origin}. Shares of pictures in % [95 % interval: Wilson, or bootstrap over "
        "cases].\n"
    )


def _faces_text(measured: Measured) -> str:
    table = estimates(measured.entries, measured.rows, FACE_COLUMNS)
    return (
        f"**Faces**\n\n{markdown(table, FACE_COLUMNS)}\nDetected and embedded by insightface's "
        f"{measured.encoders['faces']}. The published ID-Sim and ID-Conf use facer's RetinaFace and ArcFace IR-SE50, "
        "Multi-ID antelopev2's glintr100: with another pack, read own rows against one another only.\n"
    )


def _judge_text(measured: Measured, accuracy: Any) -> str:
    table = estimates(measured.entries, measured.rows, JUDGE_COLUMNS)
    text = f"**Whether it happened**\n\n{markdown(table, JUDGE_COLUMNS)}\n"
    text += "Judge: " + ", ".join(f"{key} {value}" for key, value in measured.judge.items()) + ".\n"
    if measured.mass is not None:
        text += f"Yes and No hold {100 * measured.mass:.0f} % of the probability of its first word"
        trusted = measured.mass >= LEAST_MASS
        text += ".\n" if trusted else ": it is answering something else, and its verdicts mean little.\n"
    if accuracy is not None:
        text += _corrected_text(measured, accuracy)
    if measured.unparsable is not None:
        graded = estimates(measured.entries, measured.rows, GRADE_COLUMNS)
        text += f"\n{markdown(graded, GRADE_COLUMNS)}" if graded else ""
        text += (
            f"\nGrades: {measured.unparsable} of {len(measured.entries)} answers could not be read twice and are "
            "left out.\n"
        )
    return text


def corrected_happened(measured: Measured, accuracy: Any) -> Any:
    """Correct the share of verdicts for the judge's errors; None without verdicts."""
    from .judge.accuracy import corrected

    pairs = [
        (row["happened"], entry.case)
        for row, entry in zip(measured.rows, measured.entries)
        if row.get("happened") is not None
    ]
    return corrected([value for value, _ in pairs], [case for _, case in pairs], accuracy) if pairs else None


def _corrected_text(measured: Measured, accuracy: Any) -> str:
    rates = f"sensitivity {accuracy.sensitivity.text(100)} %, specificity {accuracy.specificity.text(100)} %"
    if not accuracy.informative:
        return f"This judge does not tell ({rates}): no corrected share.\n"
    share = corrected_happened(measured, accuracy)
    if share is None:
        return ""
    return (
        f"Happened, corrected for the judge's errors (Rogan & Gladen; {rates}): {share.text(100)} %. The raw share "
        "is above.\n"
    )


def sections_facts(measured: Measured, accuracy: Any) -> dict[str, Any]:
    """Return the sections for JSON."""
    facts: dict[str, Any] = {"notes": list(measured.notes), "seconds": round(measured.seconds, 2)}
    licences = {name: licence_of(name) for name in sets_of(measured)}
    if licences:
        facts["licences"] = licences
    if measured.subjects is not None:
        facts["subjects"] = {
            "models": measured.subjects.models,
            "floor": measured.subjects.floor,
            "floor_from": measured.subjects.floor_from,
            "groups": _groups(measured, SUBJECT_COLUMNS),
        }
    if "faces" in measured.encoders:
        facts["faces"] = {"model": measured.encoders["faces"], "groups": _groups(measured, FACE_COLUMNS)}
    if measured.judge is not None:
        facts["judge"] = {
            **measured.judge,
            "mass": measured.mass,
            "unparsable": measured.unparsable,
            "groups": _groups(measured, (*JUDGE_COLUMNS, *GRADE_COLUMNS)),
        }
        share = None if accuracy is None else corrected_happened(measured, accuracy)
        if share is not None:
            facts["judge"]["happened_corrected"] = asdict(share)
            facts["judge"]["accuracy"] = accuracy.table()
    return facts


def _groups(measured: Measured, columns: Sequence[Column]) -> dict[str, Any]:
    table = estimates(measured.entries, measured.rows, columns)
    return {group: {key: asdict(estimate) for key, estimate in row.items()} for group, row in table.items()}


def picture_facts(measured: Measured, index: int) -> dict[str, Any]:
    """Return one picture's measures and detections, for JSON."""
    row, facts = measured.rows[index], {}
    parts = {"subjects": SUBJECT_COLUMNS, "faces": FACE_COLUMNS, "judge": (*JUDGE_COLUMNS, *GRADE_COLUMNS)}
    for name, columns in parts.items():
        values = {column.key: row[column.key] for column in columns if row.get(column.key) is not None}
        if values:
            facts[name] = values
    subject_row = measured.subjects.rows[index] if measured.subjects else None
    if subject_row is not None:
        facts["detections"] = [
            {"name": one.name, "box": [round(edge, 4) for edge in one.box], "score": round(one.score, 4)}
            for one in subject_row.detections
        ]
        facts["assigned"] = list(subject_row.assigned)
    return facts


def names_of(entry: Entry) -> tuple[str, ...]:
    """Return the names of the references, for drawings."""
    return entry.names or tuple(f"subject {number}" for number in range(1, len(entry.references) + 1))
