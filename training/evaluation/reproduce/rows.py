"""Write own rows beside the published ones, and a sheet with one column for each method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from PIL import Image, ImageDraw

from ...common.sheets import INK, PAPER, font
from ..columns import COLUMNS, SCORE_COLUMNS, estimates
from ..measurement import Measured
from ..relationbench import published_rows
from ..scores import METRICS
from ..sheet import paste_picture

PUBLISHED_OF = {"ms-diffusion": "MS-Diffusion", "relate": "DreamRelation"}
NEAR = 1.0  # a score within this of the published one speaks for the same encoders and scoring
_SHOWN, _SIDE, _GAP = 12, 200, 8


def reproduction_text(measured: Mapping[str, Measured], complete: Mapping[str, bool], world: str) -> str:
    """Write own rows, published rows and differences as Markdown.

    Args:
        measured: method to its pictures.
        complete: method to whether it has all its pictures.
        world: the miniworld's pictures are not compared with published rows.
    """
    lines = ["| method | group | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 2) + "|"]
    published, note = {}, ""
    if world != "miniworld":
        published, note = published_rows(entry.set for own in measured.values() for entry in own.entries)
    checks = []
    for method, own in measured.items():
        for group, row in estimates(own.entries, own.rows, SCORE_COLUMNS).items():
            name = method if complete[method] else f"{method} (incomplete)"
            cells = [SCORE_COLUMNS[0].text(row[metric]) if metric in row else "-" for metric in METRICS]
            lines.append(f"| {name} | {group} | {' | '.join(cells)} |")
            theirs = published.get((PUBLISHED_OF.get(method, ""), group))
            if theirs is None:
                continue
            gaps = {metric: row[metric].value - value for metric, value in theirs.items() if metric in row}
            lines.append(
                f"| *published: {PUBLISHED_OF[method]}* | {group} | "
                + " | ".join(f"{theirs[metric]:.1f}" if metric in theirs else "-" for metric in METRICS)
                + " |"
            )
            lines.append(
                f"| *difference* | {group} | "
                + " | ".join(f"{gaps[metric]:+.1f}" if metric in gaps else "-" for metric in METRICS)
                + " |"
            )
            if method == "ms-diffusion":
                checks.append((group, max(map(abs, gaps.values())) if gaps else None))
    lines += ["", *_verdict(checks)]
    if any(line.startswith("| *published") for line in lines):
        lines.append(f"Published rows: {note}.")
    return "\n".join(lines) + "\n"


def _verdict(checks: list[tuple[str, float | None]]) -> list[str]:
    """Say whether the baseline's row fits the published one."""
    gaps = [(group, gap) for group, gap in checks if gap is not None]
    if not gaps:
        return ["No published row is comparable with these pictures; read own rows against one another."]
    if all(gap <= NEAR for _, gap in gaps):
        return [
            f"The MS-Diffusion row is within {NEAR:g} point of the published one: encoders and scoring are "
            "probably the paper's."
        ]
    worst = ", ".join(f"{group} {gap:.1f}" for group, gap in gaps)
    return [
        f"The MS-Diffusion row differs from the published one (largest difference: {worst}): encoders, subjects or "
        "scoring are not the paper's. Only differences between own rows may be read."
    ]


def rows_facts(measured: Mapping[str, Measured], complete: Mapping[str, bool]) -> dict[str, Any]:
    """Return every method's means, for JSON."""
    return {
        method: {
            "complete": complete[method],
            "groups": {
                group: {key: asdict(estimate) for key, estimate in row.items()}
                for group, row in estimates(own.entries, own.rows, tuple(COLUMNS.values())).items()
            },
        }
        for method, own in measured.items()
    }


def rows_sheet(measured: Mapping[str, Measured]) -> Image.Image:
    """Draw cases as rows: the references, then each method's picture."""
    first = next(iter(measured.values()))
    count = min(_SHOWN, len(first.entries))
    chosen = [first.entries[index * len(first.entries) // count] for index in range(count)]
    pictures = {method: {entry.line: entry.picture for entry in own.entries} for method, own in measured.items()}
    small = _SIDE // 2 - _GAP // 2
    width = small + (len(measured)) * (_SIDE + _GAP) + 2 * _GAP
    sheet = Image.new("RGB", (max(width, 420), 34 + count * (_SIDE + 24)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, method in enumerate(measured):
        pen.text((_GAP + small + _GAP + column * (_SIDE + _GAP), 10), method, INK, font(15))
    for row, entry in enumerate(chosen):
        top = 34 + row * (_SIDE + 24)
        for number, path in enumerate(entry.references[:2]):
            paste_picture(sheet, path, (_GAP, top + number * (small + _GAP)), small)
        for column, method in enumerate(measured):
            path = pictures[method].get(entry.line)
            if path is not None:
                paste_picture(sheet, path, (_GAP + small + _GAP + column * (_SIDE + _GAP), top), _SIDE)
        pen.text((_GAP, top + _SIDE + 3), entry.prompt[: width // 7], INK, font(12))
    return sheet
