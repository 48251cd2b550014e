"""Pictures that people look at, drawn with PIL alone: the samples as training goes on, and what all sheets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .atomic_io import atomic_write

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 36), (205, 205, 212)
COLOURS = ((214, 62, 78), (33, 119, 191), (38, 152, 88), (207, 131, 16), (128, 76, 176), (90, 90, 90))
_GAP = 8


def font(size: int) -> ImageFont.ImageFont:
    """Return PIL's own font, so that the sheet is the same on every machine."""
    return ImageFont.load_default(size)


def to_picture(pixels: Tensor, side: int | None = None) -> Image.Image:
    """Convert (3, H, W) in [0, 1] to a picture, resized to a square of ``side`` pixels if asked."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture if side is None else picture.resize((side, side), Image.Resampling.LANCZOS)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG under a temporary name, then rename it."""
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))


def sample_sheet(columns: Mapping[str, Sequence[Image.Image]], rows: Sequence[str]) -> Image.Image:
    """Draw one column per moment of training and one row per prompt, all of the same seeds."""
    side = next(iter(columns.values()))[0].width
    head, foot = 26, 22
    size = (len(columns) * (side + _GAP) + _GAP, head + len(rows) * (side + foot + _GAP) + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (name, pictures) in enumerate(columns.items()):
        left = _GAP + column * (side + _GAP)
        draw.text((left, 5), name, INK, font(15))
        for row, picture in enumerate(pictures):
            sheet.paste(picture, (left, head + row * (side + foot + _GAP)))
    for row, prompt in enumerate(rows):
        draw.text((_GAP, head + row * (side + foot + _GAP) + side + 3), prompt, (110, 110, 118), font(13))
    return sheet
