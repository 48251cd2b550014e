"""The emblem worn on the belly: the one trait finer than a patch of the image encoder.

A portrait's emblem is about 13 of 128 pixels wide. The encoder reads 14-pixel patches of a picture of 112 pixels, so an
emblem is smaller than one patch there, and about three patches wide where local tokens read the picture at 448.
"""

import math
from dataclasses import dataclass

from .pose import Pose
from .species import Paint
from .svg import Shape, ellipse, path, polygon
from .traits import CreatureTraits

RADIUS = 0.066  # of the emblem, in heights
CENTRE_Y = -0.118  # on the belly, in torso units


@dataclass(frozen=True)
class Mark(Shape):
    """A shape whose visible pixels the renderer counts as emblem."""


def place(pose: Pose) -> tuple[float, float]:
    """Return the middle of the emblem in torso units: it turns with the belly."""
    return (0.085 * pose.turn, CENTRE_Y)


def emblem(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw the emblem, a little narrower when the body turns."""
    x, y = place(pose)
    narrow = 1 - 0.2 * abs(pose.turn)
    if traits.emblem == "ring":
        ring = ellipse(x, y, RADIUS * 0.74 * narrow, RADIUS * 0.74)
        return [Mark(ring, fill="#ffffff", stroke=paint.emblem, width=RADIUS * 0.52, transform=at, solid=True)]
    points = {"star": _star, "cross": _cross, "diamond": _diamond}
    if traits.emblem in points:
        outline = polygon(*((x + RADIUS * narrow * px, y + RADIUS * py) for px, py in points[traits.emblem]()))
    else:
        outline = _heart(x, y, narrow) if traits.emblem == "heart" else _moon(x, y, narrow)
    return [Mark(outline, fill=paint.emblem, stroke=paint.emblem, width=0.012, transform=at, solid=True)]


def area(traits: CreatureTraits, pose: Pose) -> float:
    """Return the area of the whole emblem as a fraction of the picture, hidden or not (approximate: 10 %)."""
    shares = {"star": 1.60, "heart": 2.55, "moon": 1.95, "cross": 2.20, "diamond": 2.10, "ring": 3.14}
    return shares[traits.emblem] * (RADIUS * pose.size) ** 2 * (1 - 0.2 * abs(pose.turn))


def _star() -> list[tuple[float, float]]:
    radii = (1.12, 0.50)
    return [
        (radii[i % 2] * math.sin(math.pi * i / 5), -radii[i % 2] * math.cos(math.pi * i / 5) + 0.06) for i in range(10)
    ]


def _cross() -> list[tuple[float, float]]:
    a, b = 0.34, 0.95
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


def _diamond() -> list[tuple[float, float]]:
    return [(0.0, -1.15), (0.85, 0.0), (0.0, 1.15), (-0.85, 0.0)]


def _heart(x: float, y: float, narrow: float) -> str:
    r, w = RADIUS, RADIUS * narrow
    return path(
        f"M{x:.4f} {y + 1.0 * r:.4f}C{x - 1.75 * w:.4f} {y - 0.05 * r:.4f} {x - 0.85 * w:.4f} {y - 1.35 * r:.4f} "
        f"{x:.4f} {y - 0.45 * r:.4f}C{x + 0.85 * w:.4f} {y - 1.35 * r:.4f} {x + 1.75 * w:.4f} {y - 0.05 * r:.4f} "
        f"{x:.4f} {y + 1.0 * r:.4f}Z"
    )


def _moon(x: float, y: float, narrow: float) -> str:
    r, w = RADIUS, RADIUS * narrow
    return path(
        f"M{x + 0.50 * w:.4f} {y - 0.95 * r:.4f}C{x - 1.45 * w:.4f} {y - 1.15 * r:.4f} {x - 1.45 * w:.4f} "
        f"{y + 1.15 * r:.4f} {x + 0.50 * w:.4f} {y + 0.95 * r:.4f}C{x - 0.42 * w:.4f} {y + 0.55 * r:.4f} "
        f"{x - 0.42 * w:.4f} {y - 0.55 * r:.4f} {x + 0.50 * w:.4f} {y - 0.95 * r:.4f}Z"
    )
