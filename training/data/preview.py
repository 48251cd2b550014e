"""The annotated triplets as a picture that people look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..common.sheets import COLOURS, INK, PAPER, font, to_picture
from .dataset import Example
from .skeletons import bones_of

_GAP = 8


def triplet_sheet(examples: Sequence[Example], side: int = 320) -> Image.Image:
    """Draw one row per triplet: the target, then each subject's photograph, with all annotations on them."""
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
            _draw_skeleton(concept, example, example.keypoints_concepts[subject], subject)
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
        _draw_skeleton(picture, example, example.keypoints_target[subject], subject)
        _label(picture, name, (int(x0) + 3, max(2, int(y0) - 18)), subject)
    return picture


def _draw_skeleton(picture: Image.Image, example: Example, points: Tensor, subject: int) -> None:
    """Draw numbered joints and the bones of the subject's kind; joints that do not count are hollow."""
    visible = example.visible[subject]
    draw = ImageDraw.Draw(picture)
    colour = COLOURS[subject % len(COLOURS)]
    places = [tuple(point) for point in (points * picture.width).tolist()]
    if len(places) == 17:
        for a, b in bones_of(example.triplet.extra, subject):
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
