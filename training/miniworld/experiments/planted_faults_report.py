"""Tables, labels and a sheet of the measurements on planted faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from ...common import stats
from ...common.sheets import INK, PAPER, font
from ...evaluation.columns import COLUMNS
from ...evaluation.judge.accuracy import Label
from ...evaluation.judge.questions import HAPPENED, PRESENT, questions_of
from ...evaluation.prompts import Entry

HONEST = "honest"
FAULTS = ("swapped", "duplicate", "missing", "bled", "other relation", "reversed")
WHOLE = ("CLIP-T", "CLIP-R", "CLIP-I", "DINO")  # scores of whole pictures
SIDE = 128  # pixels
_SHOWN, _GAP, _HEAD = 8, 6, 26


def mean_rate(row: Mapping[str, stats.Estimate]) -> float:
    return sum(estimate.value for estimate in row.values()) / len(row)


def table_text(table: Mapping[str, Mapping[str, stats.Estimate]], dino: str = "") -> str:
    """Write the shares as Markdown, best measure first; measures of a whole picture in italics.

    Args:
        table: measure to fault to share.
        dino: the DINO that was measured with; empty: the miniworld's local encoder stood in its place.
    """
    lines = ["| measure | " + " | ".join(FAULTS) + " | mean |", "|---" * (len(FAULTS) + 2) + "|"]
    for key, row in table.items():
        name = {"DINO": f"DINO ({dino})" if dino else "local encoder"}.get(key, COLUMNS[key].title.removesuffix(" %"))
        cells = [row[fault].text(100, 0) if fault in row else "-" for fault in FAULTS]
        lines.append(
            f"| {f'*{name}, whole picture*' if key in WHOLE else name} | {' | '.join(cells)} "
            f"| {100 * mean_rate(row):.0f} |"
        )
    return "\n".join(lines) + "\n"


def rates_text(rows: Mapping[str, Sequence[dict | None]]) -> str:
    """Write the measures of swaps, duplicates, missing subjects, confusion and reversals, one row per kind."""
    keys = ("found", "count_exact", "swap", "duplicate", "confusion", "happened", "reversed")
    lines = [
        "| renders | pictures | " + " | ".join(COLUMNS[key].title for key in keys) + " |",
        "|---" * (len(keys) + 2) + "|",
    ]
    for kind, own in rows.items():
        present = [row for row in own if row]
        cells = []
        for key in keys:
            values = [row[key] for row in present if row.get(key) is not None]
            cells.append(stats.share(values, range(len(values))).text(100, 0) if values else "-")
        lines.append(f"| {kind} | {len(present)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def labels_of(entries: Mapping[str, Sequence[Entry | None]]) -> list[Label]:
    """List the true answers to the questions on relation and presence, of honest renders and of faults."""
    labels = []
    for kind, truths in (
        (HONEST, {HAPPENED: True, PRESENT: True}),
        ("other relation", {HAPPENED: False}),
        ("reversed", {HAPPENED: False}),
    ):
        for entry in filter(None, entries[kind]):
            labels += [
                Label(entry.picture, question.text, truths[question.kind])
                for question in questions_of(entry, entry.relation)
                if question.kind in truths
            ]
    for entry in filter(None, entries["missing"]):
        presence = [one for one in questions_of(entry, entry.relation) if one.kind == PRESENT]
        labels += [Label(entry.picture, question.text, number == 0) for number, question in enumerate(presence)]
    return labels


def sheet(entries: Mapping[str, Sequence[Entry | None]]) -> Image.Image:
    """Draw one row per kind, one column per scene."""
    kinds = list(entries)
    columns = list(range(0, len(entries[HONEST]), max(1, len(entries[HONEST]) // _SHOWN)))[:_SHOWN]
    picture = Image.new("RGB", (120 + len(columns) * (SIDE + _GAP), _HEAD + len(kinds) * (SIDE + _GAP)), PAPER)
    pen = ImageDraw.Draw(picture)
    for row, kind in enumerate(kinds):
        pen.text((8, _HEAD + row * (SIDE + _GAP) + SIDE // 2), kind, INK, font(14))
        for column, index in enumerate(columns):
            entry = entries[kind][index]
            if entry is not None:
                with Image.open(entry.picture) as image:
                    picture.paste(image, (120 + column * (SIDE + _GAP), _HEAD + row * (SIDE + _GAP)))
    for column, index in enumerate(columns):
        pen.text((120 + column * (SIDE + _GAP), 6), entries[HONEST][index].relation, INK, font(12))
    return picture
