"""How a picture of any size becomes a square, and every annotation with it, exactly.

A window of the source (in its pixels, square, possibly reaching beyond it) is resized to the canvas. Points map by
(x * W - left) / side; boxes by their corners, clipped; a box from a mask covers the mask's pixels to their outer edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..common.boxes import mask_box


@dataclass(frozen=True)
class SquareCrop:
    """A square window of a picture.

    Attributes:
        width, height: the source in pixels.
        left, top, side: the window in source pixels.
    """

    width: int
    height: int
    left: int
    top: int
    side: int

    @classmethod
    def centred(cls, width: int, height: int, fit: str) -> SquareCrop:
        """Return the largest square inside (``crop``) or the smallest one around (``pad``), in the middle."""
        side = min(width, height) if fit == "crop" else max(width, height)
        return cls(width, height, (width - side) // 2, (height - side) // 2, side)

    @classmethod
    def random(cls, width: int, height: int, fit: str, keep: Tensor, generator: torch.Generator) -> SquareCrop:
        """Return a random square of 80 to 100 % of the centred one's side that keeps the subjects where it can.

        Args:
            keep: (4,) box around all subjects, fractions of the source.
            generator: owner of the randomness.
        """
        whole = cls.centred(width, height, fit)
        size = torch.tensor([width, height, width, height])
        x0, y0, x1, y1 = (keep * size).tolist()
        needed = max(x1 - x0, y1 - y0)
        shrink = 0.8 + 0.2 * float(torch.rand((), generator=generator))
        side = min(whole.side, max(round(whole.side * shrink), int(needed) + 1))
        left = _between(x0, x1, side, width, generator)
        top = _between(y0, y1, side, height, generator)
        return cls(width, height, left, top, side)

    def crop_image(self, image: Image.Image, canvas: int) -> Image.Image:
        """Return the window as a square picture, black outside the source."""
        window = image.crop((self.left, self.top, self.left + self.side, self.top + self.side))
        return window if self.side == canvas else window.resize((canvas, canvas), Image.Resampling.LANCZOS)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Cut (H, W) bool to (side, side) bool, at the source's resolution."""
        window = Image.fromarray(mask).crop((self.left, self.top, self.left + self.side, self.top + self.side))
        return np.asarray(window, dtype=bool)

    def points(self, points: Tensor) -> Tensor:
        """Map (..., 2) fractions of the source to fractions of the canvas; outside [0, 1) is outside the window."""
        scale = torch.tensor([self.width, self.height], dtype=torch.float64)
        shift = torch.tensor([self.left, self.top], dtype=torch.float64)
        return ((points.double() * scale - shift) / self.side).float()

    def boxes(self, boxes: Tensor) -> Tensor:
        """Map (..., 4) fractions of the source to fractions of the canvas, clipped to it."""
        return torch.cat((self.points(boxes[..., :2]), self.points(boxes[..., 2:])), dim=-1).clamp(0, 1)

    def time_ids(self, canvas: int) -> Tensor:
        """Return SDXL's micro-conditioning (6,): height, width, crop top, left in canvas pixels, target size."""
        scale = canvas / self.side
        top, left = max(0, round(self.top * scale)), max(0, round(self.left * scale))
        return torch.tensor([self.height, self.width, top, left, canvas, canvas], dtype=torch.float32)


def _between(low: float, high: float, side: int, size: int, generator: torch.Generator) -> int:
    """Return a window's start that keeps [low, high] inside it and, where the picture is long enough, itself inside."""
    first, last = int(np.ceil(high)) - side, int(low)
    if size >= side:
        first, last = max(first, 0), min(last, size - side)
    else:
        first, last = size - side, 0
    if first >= last:
        return first
    return first + int(torch.randint(last - first + 1, (), generator=generator))


def box_of(mask: np.ndarray) -> Tensor | None:
    """Return the tight box (4,) of a (H, W) bool mask in fractions, outer pixel edges; None for an empty mask."""
    bounds = mask_box(mask)
    return None if bounds is None else torch.tensor(bounds, dtype=torch.float32)
