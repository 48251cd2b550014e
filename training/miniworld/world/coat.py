"""The fur's pattern on head, trunk and limbs: few bold marks each, clipped to what they lie on."""

from .pose import FACE_SHIFT, Point, Pose
from .species import Paint, flat
from .svg import Shape, ellipse, limb
from .traits import CreatureTraits

_HEAD_SPOTS = ((-0.135, -0.165, 0.062), (0.175, -0.125, 0.052), (-0.255, 0.02, 0.05), (0.26, 0.09, 0.045))
_TRUNK_SPOTS = ((-0.155, -0.19, 0.05), (0.165, -0.13, 0.05), (-0.14, 0.02, 0.045))


def on_head(traits: CreatureTraits, pose: Pose, paint: Paint, at: str, clip: str) -> list[Shape]:
    """Draw the marks of the head, in head units."""
    face = FACE_SHIFT * pose.turn
    if traits.pattern == "stripes":
        middle = [
            flat(ellipse(face * 0.6 + x, -0.225, 0.026, 0.105 - abs(x) * 0.35), paint.mark, at, clip)
            for x in (-0.105, 0.0, 0.105)
        ]
        sides = [
            flat(ellipse(side * 0.285, 0.0 + dy, 0.085, 0.020), paint.mark, at, clip)
            for side in (-1.0, 1.0)
            for dy in (-0.02, 0.06)
        ]
        return middle + sides
    if traits.pattern == "spots":
        return [flat(ellipse(x + face * 0.4, y, r, r), paint.mark, at, clip) for x, y, r in _HEAD_SPOTS]
    if traits.pattern == "patch":
        x, y = pose.eye(-1.0)
        high = -0.15 if traits.species == "frog" else y - 0.015
        return [flat(ellipse(x - 0.01, high, 0.115, 0.135), paint.mark, at, clip)]
    return []


def on_trunk(traits: CreatureTraits, paint: Paint, at: str, clip: str) -> list[Shape]:
    """Draw the marks of the trunk, in torso units."""
    if traits.pattern == "stripes":
        return [flat(ellipse(0, y, 0.3, 0.026), paint.mark, at, clip) for y in (-0.21, -0.11, -0.01)]
    if traits.pattern == "spots":
        return [flat(ellipse(x, y, r, r), paint.mark, at, clip) for x, y, r in _TRUNK_SPOTS]
    if traits.pattern == "patch":
        return [flat(ellipse(0.15, 0.0, 0.125, 0.115), paint.mark, at, clip)]
    return []


def on_limb(traits: CreatureTraits, paint: Paint, start: Point, joint: Point, end: Point, width: float) -> list[Shape]:
    """Draw the marks of an arm or leg, in scene units; `width` of the limb."""

    def along(share: float) -> Point:
        """Return a point of the bend from start over the joint to the end."""
        bend = tuple(2 * j - (s + e) / 2 for s, j, e in zip(start, joint, end))
        return tuple(
            (1 - share) ** 2 * s + 2 * share * (1 - share) * b + share**2 * e for s, b, e in zip(start, bend, end)
        )

    if traits.pattern == "stripes":
        points = [along(share) for share in (0.42, 0.52, 0.62)]
        return [Shape(limb(*points), stroke=paint.mark, width=width * 0.98)]
    if traits.pattern == "socks":
        points = [along(share) for share in (0.62, 0.8, 1.0)]
        return [Shape(limb(*points), stroke=paint.mark, width=width)]
    return []
