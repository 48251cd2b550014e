"""Pictures that people look at: the annotated triplets, the samples as training goes on, the losses.

Drawn with PIL alone, so that training needs no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .data import Example
from .settled_file import write_whole

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 36), (205, 205, 212)
COLOURS = ((214, 62, 78), (33, 119, 191), (38, 152, 88), (207, 131, 16), (128, 76, 176), (90, 90, 90))
_GAP = 8
# AP-10K: 0 left eye, 1 right eye, 2 nose, 3 neck, 4 tail, 5-7 and 8-10 front legs, 11-13 and 14-16 back legs.
_BONES = ((0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10), (4, 11), (11, 12),
          (12, 13), (4, 14), (14, 15), (15, 16))


def font(size: int) -> ImageFont.ImageFont:
    """PIL's own font, so that the sheet is the same on every machine."""
    return ImageFont.load_default(size)


def to_picture(pixels: Tensor, side: int | None = None) -> Image.Image:
    """(3, H, W) in [0, 1] to a picture, resized to a square of ``side`` pixels if asked."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture if side is None else picture.resize((side, side), Image.Resampling.LANCZOS)


def save_picture(picture: Image.Image, path: Path) -> None:
    """PNG under a temporary name, then renamed."""
    write_whole(path, lambda temporary: picture.save(temporary, format="PNG"))


def triplet_sheet(examples: Sequence[Example], side: int = 320) -> Image.Image:
    """One row a triplet: the target, then each subject's photograph, with all that was understood drawn on them."""
    columns = 1 + max(len(example.boxes) for example in examples)
    title = 40
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, len(examples) * (side + title + _GAP) + _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, example in enumerate(examples):
        top = _GAP + row * (side + title + _GAP)
        triplet = example.triplet
        draw.text((_GAP, top), f"{triplet.name}: {triplet.prompt}", INK, font(15))
        draw.text((_GAP, top + 19), f"relation: {triplet.predicate}", (110, 110, 118), font(13))
        sheet.paste(_annotated_target(example, side), (_GAP, top + title))
        for subject, name in enumerate(triplet.names):
            concept = to_picture(example.concepts[subject], side)
            _draw_skeleton(concept, example.keypoints_concepts[subject], example.visible[subject], subject)
            _label(concept, name, (4, 4), subject)
            sheet.paste(concept, (_GAP + (subject + 1) * (side + _GAP), top + title))
    return sheet


def _annotated_target(example: Example, side: int) -> Image.Image:
    picture = to_picture(example.target, side)
    cells = np.asarray(example.region.numpy() * 70, dtype=np.uint8)
    region = Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST)
    picture.paste(Image.new("RGB", picture.size, (255, 214, 0)), mask=region)
    draw = ImageDraw.Draw(picture)
    for subject, name in enumerate(example.triplet.names):
        x0, y0, x1, y1 = (example.boxes[subject] * side).tolist()
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=COLOURS[subject % len(COLOURS)], width=2)
        _draw_skeleton(picture, example.keypoints_target[subject], example.visible[subject], subject)
        _label(picture, name, (int(x0) + 3, max(2, int(y0) - 18)), subject)
    return picture


def _draw_skeleton(picture: Image.Image, points: Tensor, visible: Tensor, subject: int) -> None:
    """Numbered joints; those that do not count are hollow."""
    draw = ImageDraw.Draw(picture)
    colour = COLOURS[subject % len(COLOURS)]
    places = [tuple(point) for point in (points * picture.width).tolist()]
    if len(places) == 17:
        for a, b in _BONES:
            if visible[a] and visible[b]:
                draw.line((*places[a], *places[b]), fill=colour, width=2)
    for joint, (x, y) in enumerate(places):
        fill = colour if visible[joint] else None
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=fill, outline=PAPER if visible[joint] else colour)
        draw.text((x + 4, y - 7), str(joint), PAPER, font(10), stroke_width=1, stroke_fill=INK)


def _label(picture: Image.Image, text: str, at: tuple[int, int], subject: int) -> None:
    draw = ImageDraw.Draw(picture)
    box = draw.textbbox(at, text, font(14))
    draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=COLOURS[subject % len(COLOURS)])
    draw.text(at, text, PAPER, font(14))


def sample_sheet(columns: Mapping[str, Sequence[Image.Image]], rows: Sequence[str]) -> Image.Image:
    """One column a moment of training, one row a prompt, all of the same seeds."""
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


def loss_chart(curves: Mapping[str, Sequence[float]], first_step: int = 1, size: tuple[int, int] = (900, 260)
               ) -> Image.Image:
    """One panel a loss: every step faint, a running mean strong, its first and last value in numbers."""
    width, height = size
    chart = Image.new("RGB", (width, height * len(curves)), PAPER)
    draw = ImageDraw.Draw(chart)
    for panel, (name, values) in enumerate(curves.items()):
        frame = (70, panel * height + 34, width - 20, (panel + 1) * height - 30)
        _panel(draw, frame, name, list(values), first_step, COLOURS[panel % len(COLOURS)])
    return chart


def _panel(draw: ImageDraw.ImageDraw, frame: tuple[int, int, int, int], name: str, values: list[float],
           first_step: int, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = frame
    draw.rectangle(frame, outline=FAINT)
    if not values:
        return
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    window = max(1, len(values) // 20)
    smooth = [sum(values[max(0, i - window + 1):i + 1]) / (i - max(0, i - window + 1) + 1) for i in range(len(values))]

    def place(step: int, value: float) -> tuple[float, float]:
        return (left + (right - left) * step / max(1, len(values) - 1), bottom - 4 - (bottom - top - 8)
                * (value - low) / span)

    for quarter in range(1, 4):
        y = top + (bottom - top) * quarter / 4
        draw.line((left, y, right, y), fill=(238, 238, 242))
    pale = tuple((part + 2 * 255) // 3 for part in colour)
    if len(values) > 1:
        draw.line([place(i, value) for i, value in enumerate(values)], fill=pale, width=1)
        draw.line([place(i, value) for i, value in enumerate(smooth)], fill=colour, width=3)
    draw.text((left, top - 26), f"{name}:  {smooth[window - 1]:.4g} to {smooth[-1]:.4g}  (mean of {window} steps)", INK,
              font(16))
    draw.text((8, top - 2), _short(high), INK, font(12))
    draw.text((8, bottom - 14), _short(low), INK, font(12))
    draw.text((left, bottom + 6), f"step {first_step}", INK, font(12))
    draw.text((right - 60, bottom + 6), f"step {first_step + len(values) - 1}", INK, font(12))


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
