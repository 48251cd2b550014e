"""One square of a picture with its subjects: target, boxes, segmentations, and each subject's reference images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from core.subject.reference import reference_square

from ..common.errors import UserErrors
from ..common.image_files import open_image, to_tensor
from ..common.sheets import COLOURS, INK, PAPER, font, to_picture
from ..config.subject import SubjectDataConfig
from .square_crop import SquareCrop, box_of
from .subject_scenes import SubjectScene

DEGREES, DISTORTION = 10.0, 0.5  # the released loader's augmentation: turned so far, corners moved by half of that
_GAP = 8


@dataclass(frozen=True, eq=False)
class SubjectSample:
    """One square.

    Attributes:
        scene: with the subjects that are in it.
        target: (3, px, px) in [0, 1].
        boxes: (S, 4) fractions of the square.
        segmentations: (S, px, px) bool.
        references: for each subject its views, (3, s, s) each in [0, 1], white around the subject.
        time_ids: (6,) SDXL's micro-conditioning.
    """

    scene: SubjectScene
    target: Tensor
    boxes: Tensor
    segmentations: Tensor
    references: tuple[tuple[Tensor, ...], ...]
    time_ids: Tensor


def prepare_sample(scene: SubjectScene, place: SquareCrop, config: SubjectDataConfig, seed: int) -> SubjectSample:
    """Decode a picture and cut one square with everything in it.

    Args:
        scene, place: from `crop_scene`.
        config: of the data.
        seed: of the augmented views.

    Raises:
        UserErrors: a file is gone or broken by now.
    """
    image, px = scene.picture(), config.image_px
    masks = scene.subject_masks()
    inside = [
        np.asarray(Image.fromarray(place.mask(mask)).resize((px, px), Image.Resampling.NEAREST)) for mask in masks
    ]
    boxes = place.boxes(scene.boxes)
    if scene.masks:  # tight around what is seen in the square
        boxes = torch.stack([box if tight is None else tight for box, tight in zip(boxes, map(box_of, inside))])
    views = []
    for index in range(len(scene.names)):
        square = to_picture(_reference(scene, image, masks, index))
        rng = np.random.default_rng((seed, int(scene.digest[:12], 16), index))
        views.append(tuple(to_tensor(augmented(square, rng) if view else square) for view in range(config.views)))
    return SubjectSample(
        scene,
        to_tensor(place.crop_image(image, px)),
        boxes,
        torch.from_numpy(np.stack(inside).copy()),
        tuple(views),
        place.time_ids(px),
    )


def _reference(scene: SubjectScene, image: Image.Image, masks: list[np.ndarray], index: int) -> Tensor:
    """Return a subject's own photograph, or the subject cut from the whole target."""
    if scene.photographs:
        try:
            return reference_square(to_tensor(open_image(scene.photographs[index])), None)
        except ValueError as error:
            raise UserErrors(str(error)) from error
    return reference_square(to_tensor(image), torch.from_numpy(masks[index].astype(np.float32)))


def augmented(square: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror half of the time, turn by up to 10 degrees, tilt half of the time; white around."""
    if rng.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    square = square.rotate(rng.uniform(-DEGREES, DEGREES), Image.Resampling.BICUBIC, fillcolor=PAPER)
    if rng.random() < 0.5:
        side = square.width
        corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=np.float64)
        inwards = rng.uniform(0, DISTORTION / 2 * side, (4, 2)) * [(1, 1), (-1, 1), (-1, -1), (1, -1)]
        square = square.transform(
            square.size,
            Image.Transform.PERSPECTIVE,
            _perspective(corners + inwards, corners),
            Image.Resampling.BICUBIC,
            fillcolor=PAPER,
        )
    return square


def _perspective(target: np.ndarray, source: np.ndarray) -> list[float]:
    """Solve for PIL's eight coefficients that bring four corners of the source to those of the target."""
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()


def subject_sheet(samples: list[SubjectSample], side: int = 320) -> Image.Image:
    """Draw one row per sample: the target with boxes and segmentations, then every subject's references."""
    columns = 1 + max(sum(map(len, sample.references)) for sample in samples)
    title_height = 24
    size = (columns * (side + _GAP) + _GAP, len(samples) * (side + title_height + _GAP) + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, sample in enumerate(samples):
        top = _GAP + row * (side + title_height + _GAP)
        draw.text((_GAP, top), f"{sample.scene.name}: {sample.scene.prompt}", INK, font(15))
        sheet.paste(_annotated(sample, side), (_GAP, top + title_height))
        column = 1
        for name, views in zip(sample.scene.names, sample.references):
            for view in views:
                left = _GAP + column * (side + _GAP)
                sheet.paste(to_picture(view, side), (left, top + title_height))
                draw.text((left + 4, top + title_height + 2), name, INK, font(15))
                column += 1
    return sheet


def _annotated(sample: SubjectSample, side: int) -> Image.Image:
    picture = to_picture(sample.target, side)
    for index, (box, area) in enumerate(zip(sample.boxes, sample.segmentations)):
        colour = COLOURS[index % len(COLOURS)]
        tint = Image.fromarray(area.numpy().astype(np.uint8) * 90).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(Image.new("RGB", picture.size, colour), mask=tint)
        x0, y0, x1, y1 = (box * side).tolist()
        ImageDraw.Draw(picture).rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=2)
    return picture
