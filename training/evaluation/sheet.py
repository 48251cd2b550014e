"""A contact sheet: pictures with their references, prompts and scores, to see what the numbers speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from ..common.sheets import FAINT, INK, PAPER, font
from ..data.dataset import open_picture
from .prompts import Entry

MOST = 48
_COLUMNS, _SIDE, _SMALL, _TEXT, _GAP = 6, 240, 72, 66, 12
_GREY = (110, 110, 118)


def contact_sheet(entries: Sequence[Entry], predicates: Sequence[str | None],
                  scores: Sequence[Mapping[str, float | None]]) -> Image.Image:
    """At most MOST pictures, evenly taken from the whole list.

    Args:
        entries, predicates, scores: N each, as measured.
    """
    shown = [index * len(entries) // min(MOST, len(entries)) for index in range(min(MOST, len(entries)))]
    columns, head = min(_COLUMNS, len(shown)), 30
    width, height = _SIDE + _GAP, _SIDE + _SMALL + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, head + -(-len(shown) // columns) * height + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), f"{len(shown)} of {len(entries)} pictures, their references below", INK, font(15))
    for place, index in enumerate(shown):
        left, top = _GAP + place % columns * width, head + place // columns * height
        _cell(sheet, draw, (left, top), entries[index], predicates[index], scores[index])
    return sheet


def _cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: Entry, predicate: str | None,
          scores: Mapping[str, float | None]) -> None:
    left, top = corner
    _paste(sheet, entry.picture, (left, top), _SIDE)
    step = min(_SMALL + 4, _SIDE // max(1, len(entry.references)))
    for number, path in enumerate(entry.references):
        _paste(sheet, path, (left + number * step, top + _SIDE + 4), step - 4)
    below = top + _SIDE + _SMALL + 8
    draw.text((left, below), _fitted(draw, entry.prompt, 12), INK, font(12))
    draw.text((left, below + 16), _fitted(draw, f"predicate: {predicate or '-'}", 12), _GREY, font(12))
    told = [f"{metric.removeprefix('CLIP-')} {value:.1f}" for metric, value in scores.items() if value is not None]
    draw.text((left, below + 32), _fitted(draw, "   ".join(told), 13), INK, font(13))


def _paste(sheet: Image.Image, path: Path, corner: tuple[int, int], side: int) -> None:
    """Whole, in the middle of a square."""
    picture = ImageOps.contain(open_picture(path), (side, side), Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (side, side), FAINT)
    frame.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    sheet.paste(frame, corner)


def _fitted(draw: ImageDraw.ImageDraw, text: str, size: int) -> str:
    """As much of a text as fits below a picture."""
    if draw.textlength(text, font(size)) <= _SIDE:
        return text
    while draw.textlength(text + "...", font(size)) > _SIDE:
        text = text[:-1]
    return text + "..."
