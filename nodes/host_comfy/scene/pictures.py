"""Photographs as references: painted white around the subject, scaled where users of an engine scale by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.utils
from torch import Tensor

from ....core.routing.image_prep import on_white
from ....core.scene import WHOLE_PICTURE, Box, Scene, Subject

FIRST, ALL = "first", "all"
MEGAPIXEL = 1024 * 1024
STEP = 16  # pixels: a token of every engine with latents of factor 8 and patches of 2, or factor 16


@dataclass(frozen=True, eq=False)
class ReferenceImage:
    """One photograph of a subject as the engine gets it.

    Attributes:
        pixels: (1, H, W, 3) in [0, 1], white outside the subject's mask.
        subject: its number in the scene's subjects that have references, from 0.
    """

    pixels: Tensor
    subject: int


def referenced_subjects(scene: Scene) -> tuple[Subject, ...]:
    """Select the subjects that have references, in order: those with a weight above 0."""
    return tuple(subject for subject in scene.subjects if subject.weight > 0)


def reference_images(subjects: tuple[Subject, ...], photographs: str, most: int) -> list[ReferenceImage]:
    """List the photographs that become references, in the order of the subjects.

    Args:
        photographs: FIRST for one view of each subject, ALL for every view.
        most: with ALL, views beyond the first of each are left out from here on, the last subject's last view first.
    """
    views = [1] * len(subjects)
    if photographs == ALL:
        spare = most - len(subjects)
        for index, subject in enumerate(subjects):
            more = min(len(subject.photographs) - 1, spare)
            views[index] += more
            spare -= more
    return [
        ReferenceImage(_painted(subject, view), index)
        for index, subject in enumerate(subjects)
        for view in range(views[index])
    ]


def _painted(subject: Subject, view: int) -> Tensor:
    """(1, H, W, 3) in [0, 1], white where the mask says that the subject is not."""
    picture = subject.photographs[view]
    if subject.mask is not None:
        picture = on_white(picture, subject.mask[view])
    return picture.movedim(0, -1)[None]


def scaled(pixels: Tensor, megapixels: float) -> Tensor:
    """Scale a picture to an area, its sides to multiples of STEP; what does not fit the new shape is cut off evenly.

    Args:
        pixels: (B, H, W, C).
        megapixels: area aimed at, in 1024 * 1024 pixels.
    """
    height, width = pixels.shape[1:3]
    factor = math.sqrt(megapixels * MEGAPIXEL / (height * width))
    height, width = (max(STEP, round(side * factor / STEP) * STEP) for side in (height, width))
    return comfy.utils.common_upscale(pixels.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1)


def region_of(box: Box, width: int, height: int) -> Tensor | None:
    """Draw a box as a mask on the latent's cells; None for the whole picture, which is no limit."""
    return None if box == WHOLE_PICTURE else box.cell_shares(height // 8, width // 8)
