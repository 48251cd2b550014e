"""Tails, by which a species is told from the side and the back."""

import math

from .pose import Pose
from .species import OUTLINE, Paint, solid
from .svg import Shape, ellipse, limb, polygon
from .traits import CreatureTraits


def tail(identity: CreatureTraits, pose: Pose, paint: Paint) -> list[Shape]:
    """In torso units; it swings to the side the creature turns away from."""
    from_frame = Tail(pose, paint)
    tip = paint.dark if identity.pattern == "socks" else paint.fur
    if identity.species == "frog":
        return []
    if identity.species in ("bear", "rabbit"):
        radius = 0.055 if identity.species == "bear" else 0.07
        return [
            solid(
                ellipse(*from_frame.at(0.19, -0.04), radius, radius),
                paint.belly if radius > 0.06 else tip,
                paint.line,
                from_frame.transform,
            )
        ]
    if identity.species == "fox":
        bush = limb(from_frame.at(0.1, -0.03), from_frame.at(0.27, -0.03), from_frame.at(0.31, -0.22))
        end = limb(from_frame.at(0.305, -0.14), from_frame.at(0.312, -0.18), from_frame.at(0.31, -0.23))
        return from_frame.stroke(bush, paint.fur, 0.12) + [
            Shape(end, stroke=paint.belly, width=0.10, transform=from_frame.transform)
        ]
    if identity.species == "dragon":
        thick = limb(from_frame.at(0.1, 0.0), from_frame.at(0.25, 0.06), from_frame.at(0.36, -0.06))
        spike = polygon(from_frame.at(0.31, -0.03), from_frame.at(0.40, -0.16), from_frame.at(0.42, -0.01))
        return [solid(spike, paint.dark, paint.line, from_frame.transform), *from_frame.stroke(thick, paint.fur, 0.085)]
    curl = {"cat": (0.26, 0.02, 0.29, -0.24), "mouse": (0.24, 0.08, 0.37, -0.06), "dog": (0.21, -0.05, 0.26, -0.17)}
    middle_x, middle_y, tip_x, tip_y = curl[identity.species]
    line = limb(from_frame.at(0.1, -0.02), from_frame.at(middle_x, middle_y), from_frame.at(tip_x, tip_y))
    width = {"cat": 0.055, "mouse": 0.03, "dog": 0.06}[identity.species]
    return from_frame.stroke(line, paint.dark if identity.species == "mouse" else tip, width)


class Tail:
    """Torso units mirrored so that a tail points away from where the creature looks."""

    def __init__(self, pose: Pose, paint: Paint) -> None:
        self.away = -1.0 if pose.turn > 0 else 1.0
        self.tuck = 0.55 + 0.45 * math.sin(min(abs(pose.turn) + 0.35, 1.0) * math.pi / 2)
        self.paint = paint
        x, y = pose.torso(0.0, 0.0)
        self.transform = f"translate({x:.4f} {y:.4f}) rotate({pose.lean * 57.29578:.2f}) scale({pose.size:.4f})"

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self.away * x * self.tuck, y)

    def stroke(self, geometry: str, colour: str, width: float) -> list[Shape]:
        return [
            Shape(
                geometry, stroke=self.paint.line, width=width + 2 * OUTLINE * 0.8, transform=self.transform, solid=True
            ),
            Shape(geometry, stroke=colour, width=width, transform=self.transform),
        ]
