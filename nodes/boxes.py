"""Read boxes as ComfyUI's nodes give them to fractions of the canvas.

``BOUNDING_BOX``: ``{x, y, width, height}`` in pixels, a list of them, or one list per frame (the first is used).
``elements``: ``{type, bbox: [ymin, xmin, ymax, xmax]}`` on a canvas of 1000 x 1000; only type ``obj`` counts.
"""

from __future__ import annotations

import json
from typing import Any

from ..core.scene import Box

ELEMENT_CANVAS = 1000
SPILL = 0.01  # a detector's box may stand over the canvas by this much of it


def read_boxes(value: Any, width: int, height: int) -> list[Box]:
    """Read boxes in any of ComfyUI's forms.

    Args:
        value: a dict, a list, a list of lists, or JSON text of these.
        width, height: the canvas in pixels.

    Raises:
        ValueError: not such a form, or boxes that are reversed, empty or off the canvas; all faults in one message.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(
                'bboxes: expected JSON such as [{"x": 0, "y": 0, "width": 512, "height": 1024}], '
                f"got {value[:80]!r} ({error})."
            ) from error
    boxes, faults = [], []
    for number, item in enumerate(_flat(value), start=1):
        try:
            edges = _edges(item, width, height)
            boxes.append(Box(*edges))
        except ValueError as error:
            faults.append(f"box {number}: {str(error).removeprefix('box: ').split('. Boxes are')[0]}")
    if faults:
        raise ValueError(
            f"bboxes on a canvas of {width} x {height}: {'; '.join(faults)}. Boxes have a positive width "
            "and height and lie on the canvas."
        )
    return boxes


def _flat(value: Any) -> list:
    """Flatten to one list of boxes: a single one in a list, the first of several frames, drawn objects only."""
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"bboxes: expected a list of boxes, got {type(items).__name__}.")
    if items and isinstance(items[0], (list, tuple)):
        items = items[0]
    return [item for item in items if not (isinstance(item, dict) and item.get("type", "obj") != "obj")]


def _edges(item: Any, width: int, height: int) -> list[float]:
    """Read x0, y0, x1, y1 of a box as fractions."""
    try:
        if "bbox" in item:
            top, left, bottom, right = (float(value) / ELEMENT_CANVAS for value in item["bbox"])
            edges = [left, top, right, bottom]
        else:
            x, y, w, h = (float(item[name]) for name in ("x", "y", "width", "height"))
            edges = [x / width, y / height, (x + w) / width, (y + h) / height]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected {{x, y, width, height}} or {{bbox: [ymin, xmin, ymax, xmax]}}, got {item!r}"
        ) from error
    return [min(max(edge, 0.0), 1.0) if -SPILL <= edge <= 1 + SPILL else edge for edge in edges]
