"""Draw the scores of pictures as a table: one row for each, best first, with its thumbnail and bars."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .fonts import font_for
from .layout import COLOURS, GRID, PAPER, from_pil, to_pil

_ROW, _THUMBNAIL, _COLUMN, _HEAD = 112, 96, 132, 40
_TEXT, _FAINT, _BAD = "#e8eaed", "#9aa0a6", "#D55E00"
_SWAPPED = "swapped"


def draw_scores(images: Tensor, scores: Sequence, names: Sequence[str]) -> Tensor:
    """Draw a table of scores.

    Args:
        images: (B, H, W, 3) in [0, 1], in the order of the batch.
        scores: of `score_pictures`, best first.
        names: of the subjects.

    Returns:
        (1, H, W, 3) in [0, 1].
    """
    # title, values and colour of each column
    columns = [
        ("relation", [score.relation for score in scores], _TEXT),
        ("identity", [score.identity for score in scores], _TEXT),
    ]
    columns += [
        (name, [score.subjects[subject] for score in scores], COLOURS[subject % len(COLOURS)])
        for subject, name in enumerate(names)
    ]
    columns.append(("prompt", [score.prompt for score in scores], _FAINT))

    # a row for each picture: its place, its thumbnail, a mark if it is swapped
    width = 56 + _ROW + len(columns) * _COLUMN + 24
    canvas = Image.new("RGB", (width, _HEAD + len(scores) * _ROW + 8), PAPER)
    pen = ImageDraw.Draw(canvas)
    small, large = ImageFont.load_default(size=14), ImageFont.load_default(size=22)
    for row, score in enumerate(scores):
        top = _HEAD + row * _ROW
        pen.line([(0, top), (width, top)], fill=GRID)
        pen.text((16, top + 34), str(row + 1), fill=_TEXT, font=large)
        thumbnail = to_pil(images[score.index, ..., :3].movedim(-1, 0))
        thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        corner = 56 + (_THUMBNAIL - thumbnail.width) // 2, top + 8 + (_THUMBNAIL - thumbnail.height) // 2
        canvas.paste(thumbnail, corner)
        if score.swapped:
            pen.rectangle([56, top + 8, 64 + pen.textlength(_SWAPPED, font=small), top + 26], fill=_BAD)
            pen.text((60, top + 9), _SWAPPED, fill="black", font=small)

    # the numbers, column by column
    for column, (title, values, colour) in enumerate(columns):
        left = 56 + _ROW + column * _COLUMN
        font = font_for(title, 14)
        pen.text((left, 12), _fitted(pen, title, font), fill=colour, font=font)
        _draw_column(pen, left, values, colour, large)
    return from_pil(canvas)[None]


def _draw_column(pen: ImageDraw.ImageDraw, left: int, values: Sequence[float | None], colour: str, font) -> None:
    """Draw numbers, and bars from the column's lowest value to its highest."""
    numbers = [value for value in values if value is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    for row, value in enumerate(values):
        top = _HEAD + row * _ROW
        pen.text((left, top + 26), "-" if value is None else f"{value:.1f}", fill=colour, font=font)
        pen.rectangle([left, top + 62, left + _COLUMN - 28, top + 70], fill=GRID)
        if value is not None:
            share = 1.0 if high == low else 0.05 + 0.95 * (value - low) / (high - low)
            pen.rectangle([left, top + 62, left + round(share * (_COLUMN - 28)), top + 70], fill=colour)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font) -> str:
    """Shorten a title to the width of its column."""
    if pen.textlength(text, font=font) <= _COLUMN - 16:
        return text
    while text and pen.textlength(text + "...", font=font) > _COLUMN - 16:
        text = text[:-1]
    return text + "..."


def reorder(images: Tensor, scores: Sequence) -> Tensor:
    """Reorder the batch, best first."""
    return images[torch.tensor([score.index for score in scores], device=images.device)]
