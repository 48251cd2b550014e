"""Tails and wings, by which a species is recognised from the side and from the back. Torso units."""

import math

from .pose import Point, Pose
from .species import INK, OUTLINE, Paint, solid
from .svg import Shape, ellipse, limb, path
from .traits import CreatureTraits

_CURLS = {  # middle (x, y), tip (x, y), width
    "cat": ((0.30, 0.02), (0.33, -0.21), 0.070),
    "mouse": ((0.28, 0.10), (0.40, -0.06), 0.045),
    "dog": ((0.25, -0.04), (0.31, -0.17), 0.080),
}


def tail(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw the tail, to the side the creature turns away from, and a dragon's wings."""
    away = -1.0 if pose.turn > 0 else 1.0
    tuck = 0.62 + 0.38 * math.sin(min(abs(pose.turn) + 0.35, 1.0) * math.pi / 2)
    tip = paint.mark if traits.pattern == "socks" else paint.flat_fur

    def point(x: float, y: float) -> Point:
        return (away * x * tuck, y)

    if traits.species == "frog":
        return []
    if traits.species in ("bear", "rabbit"):
        radius = 0.062 if traits.species == "bear" else 0.078
        colour = paint.fur if traits.species == "bear" else paint.belly
        return [solid(ellipse(*point(0.195, -0.02), radius, radius), colour, at)]
    if traits.species == "fox":
        bush = limb(point(0.10, -0.01), point(0.33, 0.0), point(0.36, -0.22))
        end = limb(point(0.352, -0.17), point(0.358, -0.20), point(0.36, -0.235))
        return [
            *_stroke(bush, paint.flat_fur, 0.155, at),
            Shape(end, stroke=paint.belly_flat, width=0.135, transform=at),
        ]
    if traits.species == "dragon":
        thick = limb(point(0.10, 0.02), point(0.27, 0.07), point(0.37, -0.07))
        x, y = point(0.37, -0.09)
        arrow = path(
            f"M{x - 0.075:.3f} {y + 0.035:.3f}L{x + away * 0.035:.3f} {y - 0.115:.3f}L{x + 0.075:.3f} {y + 0.06:.3f}Z"
        )
        return [*_wings(pose, paint, at), solid(arrow, paint.mark, at), *_stroke(thick, paint.flat_fur, 0.095, at)]
    middle, end, width = _CURLS[traits.species]
    return _stroke(limb(point(0.10, -0.01), point(*middle), point(*end)), tip, width, at)


def _stroke(geometry: str, colour: str, width: float, at: str) -> list[Shape]:
    return [
        Shape(geometry, stroke=INK, width=width + 1.7 * OUTLINE, transform=at, solid=True),
        Shape(geometry, stroke=colour, width=width, transform=at),
    ]


def _wings(pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw two small wings behind the shoulders."""
    shapes = []
    for side in (-1.0, 1.0):
        x, wide = side * 0.10 - 0.06 * pose.turn, side * (0.55 + 0.45 * pose.spread)
        wing = path(
            f"M{x:.3f} -0.20Q{x + 0.16 * wide:.3f} -0.37 {x + 0.31 * wide:.3f} -0.31"
            f"Q{x + 0.27 * wide:.3f} -0.22 {x + 0.29 * wide:.3f} -0.13Q{x + 0.17 * wide:.3f} -0.15 {x:.3f} -0.06Z"
        )
        shapes.append(solid(wing, paint.mark, at))
    return shapes
