"""Clean masks, paint over them, and turn them into outlines that people can edit and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

_HOLE, _ISLAND = 0.005, 0.02  # of the mask's area
_RING = 0.03  # of the picture's longer side: what surrounds a mask


def clean(mask: np.ndarray) -> np.ndarray:
    """Fill small holes and drop small islands; SAM's own options for it are accepted and do nothing."""
    from scipy import ndimage

    if not mask.any():
        return mask
    total, result = mask.sum(), mask.copy()
    for value, share in ((True, _ISLAND), (False, _HOLE)):
        labels, count = ndimage.label(result == value)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        small = sizes < share * total
        small[0] = False  # not of this value at all
        if value and small[1:].all():
            continue
        result[small[labels]] = not value
    return result


def dilate(mask: np.ndarray, pixels: float) -> np.ndarray:
    """Grow a mask by a number of pixels, at least one."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask) <= max(pixels, 1.0) if mask.any() else mask


def paint_over(image: Image.Image, masks: Sequence[np.ndarray]) -> Image.Image:
    """Fill masks with the mean colour of what surrounds each."""
    pixels = np.asarray(image.convert("RGB")).copy()
    for mask in masks:
        ring = dilate(mask, _RING * max(image.size)) & ~np.logical_or.reduce(list(masks))
        if mask.any() and ring.any():
            pixels[mask] = pixels[ring].mean(0).round()
    return Image.fromarray(pixels)


def outlines(mask: np.ndarray, tolerance: float = 1.0) -> list[list[tuple[float, float]]]:
    """Draw polygons in pixels around the parts of a mask: a view for editors, holes left out.

    Args:
        mask: (H, W) bool.
        tolerance: pixels that a simplified outline may lie off.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    polygons = []
    for part in range(1, count + 1):
        outline = _simplified(_walk(labels == part), tolerance)
        if len(outline) >= 3:
            polygons.append([(float(x), float(y)) for x, y in outline])
    return polygons


def _walk(mask: np.ndarray) -> np.ndarray:
    """Follow the outer boundary of one part, pixel by pixel (Moore's neighbours, clockwise): (N, 2) x, y."""
    padded = np.pad(mask, 1)
    ring = [(0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)]
    y, x = (int(value) for value in np.argwhere(padded)[0])
    start, direction, points = (x, y), 0, [(x, y)]
    for _ in range(4 * padded.size):
        for turn in range(8):
            step = (direction + 6 + turn) % 8
            nx, ny = x + ring[step][0], y + ring[step][1]
            if padded[ny, nx]:
                x, y, direction = nx, ny, step
                break
        else:
            break  # a single pixel
        if (x, y) == start:
            break
        points.append((x, y))
    return np.array(points, float) - 1 + 0.5


def _simplified(points: np.ndarray, tolerance: float) -> np.ndarray:
    """Simplify a closed line as Ramer, Douglas and Peucker do."""
    if len(points) < 4:
        return points
    far = int(np.linalg.norm(points - points[0], axis=1).argmax())
    keep, stack = {0, far}, [(0, far), (far, len(points))]
    closed = np.concatenate((points, points[:1]))
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        a, b = closed[first], closed[last]
        inner, length = closed[first + 1 : last] - a, np.linalg.norm(b - a)
        sideways = (b - a)[0] * inner[:, 1] - (b - a)[1] * inner[:, 0]
        off = np.abs(sideways) / length if length else np.linalg.norm(inner, axis=1)
        if off.max() > tolerance:
            middle = first + 1 + int(off.argmax())
            keep.add(middle)
            stack += [(first, middle), (middle, last)]
    return points[sorted(keep)]
