"""Small things in scenes that say at a glance what happens: a heart, a note, an apple, a spark, sleep, dust."""

import math

from .species import INK
from .svg import Shape, ellipse, path, polygon

LINE = 0.013


def draw_prop(kind: str, x: float, y: float, size: float) -> list[Shape]:
    """Draw a prop in scene units.

    Args:
        kind: apple, heart, note, spark, sleep or dust.
        x, y: its middle, as fractions of the picture.
        size: half of its height.
    """
    return _PROPS[kind](x, y, size)


def _apple(x: float, y: float, size: float) -> list[Shape]:
    leaf = path(f"M{x:.3f} {y - size:.3f}q{size * 0.1:.3f} {-size * 0.7:.3f} {size * 0.8:.3f} {-size * 0.6:.3f}")
    return [
        Shape(leaf, stroke="#3f7f33", width=0.02),
        Shape(ellipse(x, y, size, size), fill="#e8413f", stroke=INK, width=LINE),
        Shape(ellipse(x - size * 0.35, y - size * 0.35, size * 0.25, size * 0.25), fill="#ffffff", opacity=0.8),
    ]


def _heart(x: float, y: float, size: float) -> list[Shape]:
    outline = (
        f"M{x:.3f} {y + size:.3f}C{x - 1.7 * size:.3f} {y - 0.1 * size:.3f} {x - 0.8 * size:.3f} {y - 1.4 * size:.3f} "
        f"{x:.3f} {y - 0.35 * size:.3f}C{x + 0.8 * size:.3f} {y - 1.4 * size:.3f} {x + 1.7 * size:.3f} "
        f"{y - 0.1 * size:.3f} {x:.3f} {y + size:.3f}Z"
    )
    return [Shape(path(outline), fill="#ff4f74", stroke=INK, width=LINE)]


def _note(x: float, y: float, size: float) -> list[Shape]:
    stem = path(
        f"M{x + 0.3 * size:.3f} {y + 0.65 * size:.3f}V{y - size:.3f}Q{x + 0.5 * size:.3f} {y - 0.5 * size:.3f} "
        f"{x + 1.0 * size:.3f} {y - 0.35 * size:.3f}"
    )
    return [
        Shape(stem, stroke=INK, width=0.022),
        Shape(ellipse(x - 0.1 * size, y + 0.7 * size, 0.5 * size, 0.38 * size), fill=INK),
    ]


def _spark(x: float, y: float, size: float) -> list[Shape]:
    points = [
        (
            x + (size if i % 2 else 0.45 * size) * math.sin(math.pi * i / 5),
            y - (size if i % 2 else 0.45 * size) * math.cos(math.pi * i / 5),
        )
        for i in range(10)
    ]
    return [Shape(polygon(*points), fill="#ffd83d", stroke=INK, width=LINE)]


def _sleep(x: float, y: float, size: float) -> list[Shape]:
    def letter(left: float, top: float, side: float) -> Shape:
        return Shape(
            path(f"M{left:.3f} {top:.3f}h{side:.3f}l{-side:.3f} {side:.3f}h{side:.3f}"), stroke=INK, width=0.022
        )

    return [letter(x - size, y, 0.8 * size), letter(x + 0.25 * size, y - 0.85 * size, 1.0 * size)]


def _dust(x: float, y: float, size: float) -> list[Shape]:
    puffs = ((0.0, 0.0, 1.0), (-1.3, 0.15, 0.7), (0.6, 0.35, 0.6))
    return [
        Shape(ellipse(x + dx * size, y + dy * size, r * size, 0.8 * r * size), fill="#ffffff", opacity=0.85)
        for dx, dy, r in puffs
    ]


_PROPS = {"apple": _apple, "heart": _heart, "note": _note, "spark": _spark, "sleep": _sleep, "dust": _dust}
