"""Polygons to masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_FAR = 1e6  # pixels: farther corners are drawn here, Pillow counts in 32 bits


def fill_polygons(polygons: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> np.ndarray:
    """Turn polygons of (x, y) in pixels into a mask (H, W) bool of a picture of `size` (width, height)."""
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        near = np.clip(np.asarray(polygon, dtype=float), -_FAR, _FAR)
        draw.polygon([(x, y) for x, y in near.tolist()], fill=1)
    return np.asarray(canvas)
