"""The models that look at pictures, as protocols: they find, cut out and embed.

The models are opened in `training/host_diffusers`; annotation and evaluation know these protocols only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from .boxes import non_maximum_suppression

LEAST_SCORE = 0.30  # of a detection
SAME_THING = 0.7  # IoU above which two detections are one thing, found under two names
LEAST_SIDE = 1 / 20  # of a detection, as a fraction of the picture's width
WHITE = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Detection:
    """One thing found in a picture.

    Attributes:
        name: the name it was found under, one of the caller's.
        box: x0 y0 x1 y1, fractions of the picture.
        score: the detector's confidence, 0 to 1.
        mask: (H, W) bool at the picture's size, or None.
    """

    name: str
    box: tuple[float, float, float, float]
    score: float
    mask: np.ndarray | None = None


class Detector(Protocol):
    """Finds things by name."""

    name: str

    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """Find all candidates, whatever their score; `select` chooses among them."""
        ...


class Segmenter(Protocol):
    """Cuts out what stands in a box."""

    name: str

    def masks(self, image: Image.Image, boxes: Sequence[Sequence[float]]) -> list[np.ndarray]:
        """Cut out one mask (H, W) bool for each box in fractions."""
        ...


class ImageEncoder(Protocol):
    """Embeds pictures of any size."""

    name: str

    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """Embed to (N, E) float32 on the CPU; not normalised."""
        ...


def select(detections: Sequence[Detection], size: tuple[int, int], least_score: float = LEAST_SCORE) -> list[Detection]:
    """Leave out faint, tiny and doubled detections; best first.

    Args:
        detections: of one picture, under all names.
        size: width and height of the picture in pixels.
        least_score: lowest score that counts.
    """
    width, height = size
    candidates = [
        one
        for one in detections
        if one.score >= least_score
        and min((one.box[2] - one.box[0]) * width, (one.box[3] - one.box[1]) * height) >= LEAST_SIDE * width
    ]
    boxes = np.array([one.box for one in candidates]).reshape(-1, 4)
    return [candidates[row] for row in non_maximum_suppression(boxes, [one.score for one in candidates], SAME_THING)]


def crop(image: Image.Image, box: Sequence[float], mask: np.ndarray | None = None) -> Image.Image:
    """Cut a box out of a picture, paint what is not in the mask white, and pad it white to a square.

    Raises:
        ValueError: the box holds no pixel.
    """
    width, height = image.size
    left, top = max(0, int(box[0] * width)), max(0, int(box[1] * height))
    right, bottom = min(width, -int(-box[2] * width // 1)), min(height, -int(-box[3] * height // 1))
    if left >= right or top >= bottom:
        raise ValueError(f"box {tuple(box)} holds no pixel of a picture of {width} x {height}")
    image = image.convert("RGB")
    if mask is not None:
        image = Image.composite(image, Image.new("RGB", image.size, WHITE), Image.fromarray(np.asarray(mask, bool)))
    piece = image.crop((left, top, right, bottom))
    side = max(piece.size)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(piece, ((side - piece.width) // 2, (side - piece.height) // 2))
    return square
