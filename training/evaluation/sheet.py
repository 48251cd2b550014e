"""A contact sheet: pictures with their references, prompts and scores, to look at beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from ..common.image_files import open_picture
from ..common.sheets import COLOURS, FAINT, INK, PAPER, font
from .prompts import Entry
from .scores import METRICS

MOST = 48
_COLUMNS, _SIDE, _SMALL, _TEXT, _GAP = 6, 240, 72, 82, 12
_GREY = (110, 110, 118)
_FLAGS = ("found", "identity", "swap", "confusion", "happened", "reversed")


def contact_sheet(
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    scores: Sequence[Mapping[str, float | None]],
    subjects: Any = None,
) -> Image.Image:
    """Draw at most MOST pictures, taken evenly from the whole list.

    Args:
        entries, predicates, scores: N each, as measured.
        subjects: `SubjectResults`: detections are drawn, in the colour of the reference they were assigned to; or None.
    """
    count = min(MOST, len(entries))
    chosen = [index * len(entries) // count for index in range(count)]
    columns, head = min(_COLUMNS, count), 30
    width, height = _SIDE + _GAP, _SIDE + _SMALL + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, head + -(-count // columns) * height + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), f"{count} of {len(entries)} pictures, their references below", INK, font(15))
    for place, index in enumerate(chosen):
        left, top = _GAP + place % columns * width, head + place // columns * height
        _cell(sheet, draw, (left, top), entries[index], predicates[index], scores[index])
        if subjects is not None and subjects.rows[index] is not None:
            _draw_detections(draw, entries[index].picture, (left, top), subjects.rows[index])
    return sheet


def _draw_detections(draw: ImageDraw.ImageDraw, path: Path, corner: tuple[int, int], row: Any) -> None:
    """Draw boxes over a picture that `paste_picture` put at a corner; grey for a detection without a reference."""
    picture = open_picture(path)
    scale = _SIDE / max(picture.size)
    wide, high = picture.width * scale, picture.height * scale
    left, top = corner[0] + (_SIDE - wide) / 2, corner[1] + (_SIDE - high) / 2
    owners = {detection: reference for reference, detection in enumerate(row.assigned) if detection is not None}
    for number, one in enumerate(row.detections):
        colour = COLOURS[owners[number] % len(COLOURS)] if number in owners else _GREY
        x0, y0, x1, y1 = one.box
        edges = left + x0 * wide, top + y0 * high, left + x1 * wide - 1, top + y1 * high - 1
        draw.rectangle(edges, outline=colour, width=2)
        draw.text((edges[0] + 4, edges[1] + 2), one.name, colour, font(11), stroke_width=1, stroke_fill=PAPER)


def _cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entry: Entry,
    predicate: str | None,
    scores: Mapping[str, float | None],
) -> None:
    left, top = corner
    paste_picture(sheet, entry.picture, (left, top), _SIDE, Image.Resampling.LANCZOS)
    step = min(_SMALL + 4, _SIDE // max(1, len(entry.references)))
    for number, path in enumerate(entry.references):
        corner = (left + number * step, top + _SIDE + 4)
        paste_picture(sheet, path, corner, step - 4, Image.Resampling.LANCZOS)
    below = top + _SIDE + _SMALL + 8
    draw.text((left, below), _shortened(draw, entry.prompt, 12), INK, font(12))
    draw.text((left, below + 16), _shortened(draw, f"predicate: {predicate or '-'}", 12), _GREY, font(12))
    values = [
        f"{metric.removeprefix('CLIP-')} {scores[metric]:.1f}" for metric in METRICS if scores.get(metric) is not None
    ]
    draw.text((left, below + 32), _shortened(draw, "   ".join(values), 13), INK, font(13))
    flags = [f"{name.replace('_', ' ')} {scores[name]:.2g}" for name in _FLAGS if scores.get(name) is not None]
    draw.text((left, below + 48), _shortened(draw, "   ".join(flags), 12), _GREY, font(12))


def paste_picture(
    sheet: Image.Image,
    path: Path,
    corner: tuple[int, int],
    side: int,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> None:
    """Paste a whole picture in the middle of a square."""
    picture = ImageOps.contain(open_picture(path), (side, side), resampling)
    frame = Image.new("RGB", (side, side), FAINT)
    frame.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    sheet.paste(frame, corner)


def _shortened(draw: ImageDraw.ImageDraw, text: str, size: int) -> str:
    """Cut a text to the width of a picture."""
    if draw.textlength(text, font(size)) <= _SIDE:
        return text
    while draw.textlength(text + "...", font(size)) > _SIDE:
        text = text[:-1]
    return text + "..."
