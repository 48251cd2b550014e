"""One creature, drawn in three layers (back, middle, front) so that two of them can be interleaved in an embrace."""

from dataclasses import dataclass

import numpy as np

from . import accessories, species, tails
from .pose import FACE_SHIFT, NECK, Pose, solve
from .species import OUTLINE, Paint, solid
from .svg import Palette, Shape, ellipse, frame, limb
from .traits import CreatureTraits

LAYERS = ("back", "middle", "front")


@dataclass(frozen=True)
class Body:
    """What the parts of one creature share while it is drawn."""

    identity: CreatureTraits
    pose: Pose
    joints: np.ndarray
    paint: Paint
    palette: Palette
    key: str

    @property
    def torso(self) -> str:
        return frame(self.pose.torso(0.0, 0.0), self.pose.size, self.pose.lean)

    @property
    def head(self) -> str:
        return frame(self.pose.head, self.pose.size, self.pose.head_angle)


def draw_creature(identity: CreatureTraits, pose: Pose, palette: Palette, key: str) -> dict[str, list[Shape]]:
    """The shapes of a creature, back to front within each layer.

    Args:
        identity: who.
        pose: where.
        palette: receives gradients and clips.
        key: unique in the picture; names the creature's clip paths.
    Returns:
        Shapes by layer name, in scene units.
    """
    body = Body(identity, pose, solve(pose), Paint.of(identity, palette), palette, key)
    far = 0 if pose.turn > 0 else 1  # turned right, our creature's left side is the far one
    arms, legs = [_limb(body, 5 + 3 * i, 0.092) for i in (0, 1)], [_limb(body, 11 + 3 * i, 0.118) for i in (0, 1)]
    sideways = abs(pose.turn) > 0.25
    behind = arms[0] + arms[1] if pose.arms_behind else arms[far] if sideways else []
    front = [] if pose.arms_behind else arms[1 - far] if sideways else arms[0] + arms[1]
    return {
        "back": accessories.behind(identity, pose, body.paint, body.torso)
        + tails.tail(identity, pose, body.paint)
        + behind
        + legs[far],
        "middle": _trunk(body)
        + legs[1 - far]
        + accessories.around_neck(identity, pose, body.paint, body.torso)
        + _head(body),
        "front": front,
    }


def _limb(body: Body, first: int, width: float) -> list[Shape]:
    """Arm or leg starting at keypoint `first`, with its paw."""
    size, paint = body.pose.size, body.paint
    start, joint, end = (tuple(body.joints[first + step]) for step in range(3))
    bend = limb(start, joint, end)
    socks = body.identity.pattern == "socks"
    paw = ellipse(end[0], end[1], width * 0.60 * size, width * 0.58 * size)
    shapes = [
        Shape(bend, stroke=paint.line, width=(width + 2 * OUTLINE * 0.8) * size, solid=True),
        Shape(paw, fill=paint.line, stroke=paint.line, width=2 * OUTLINE * size, solid=True),
        Shape(bend, stroke=_flat(body), width=width * size),
    ]
    if body.identity.pattern == "stripes":
        middle = [
            tuple((1 - at) * np.array(start) / 2 + at * np.array(end) / 2 + np.array(joint) / 2) for at in (0.42, 0.62)
        ]
        shapes.append(
            Shape(
                limb(middle[0], tuple((np.array(middle[0]) + middle[1]) / 2), middle[1]),
                stroke=_flat(body, dark=True),
                width=width * 0.9 * size,
            )
        )
    shapes.append(Shape(paw, fill=paint.dark if socks else paint.belly))
    return shapes


def _flat(body: Body, dark: bool = False) -> str:
    """A stroke's paint: gradients of an object's box misbehave on thin lines, so limbs are one flat tone."""
    from .colour import css, shade

    return css(shade(body.identity.fur_colour, -0.24 if dark else -0.015, 0.95 if dark else 1.0))


def _trunk(body: Body) -> list[Shape]:
    pose, paint, at = body.pose, body.paint, body.torso
    wide = 0.178 * (1 - 0.13 * abs(pose.turn))
    outline = ellipse(0, -NECK / 2 + 0.01, wide, 0.185)
    clip = body.palette.clip(f"t{body.key}", outline, at)
    shapes = [solid(outline, paint.fur, paint.line, at)]
    pattern = body.identity.pattern
    if pattern == "stripes":
        shapes += [
            Shape(ellipse(0, y, 0.3, 0.024), fill=paint.dark, transform=at, clip=clip) for y in (-0.25, -0.145, -0.04)
        ]
    elif pattern == "spots":
        spots = (
            (-0.13, -0.2, 0.042),
            (0.14, -0.17, 0.036),
            (-0.145, -0.05, 0.034),
            (0.12, -0.03, 0.044),
            (0.02, 0.02, 0.03),
        )
        shapes += [Shape(ellipse(x, y, r, r), fill=paint.dark, transform=at, clip=clip) for x, y, r in spots]
    elif pattern == "patch":
        shapes.append(Shape(ellipse(-0.14, -0.02, 0.12, 0.11), fill=paint.dark, transform=at, clip=clip))
    shapes.append(
        Shape(
            ellipse(0.085 * pose.turn, -0.115, 0.112 * (1 - 0.25 * abs(pose.turn)), 0.125),
            fill=paint.belly,
            transform=at,
            clip=clip,
        )
    )
    shapes.append(Shape(outline, stroke=paint.line, width=OUTLINE, transform=at))
    return shapes


def _head(body: Body) -> list[Shape]:
    identity, pose, paint, at = body.identity, body.pose, body.paint, body.head
    skull = species.skull(identity, paint, at)
    clip = body.palette.clip(f"h{body.key}", skull[0].geometry, at)
    face = FACE_SHIFT * pose.turn
    shapes = [*species.ears(identity, pose, paint, at), *skull]
    if identity.pattern == "stripes":
        shapes += [
            Shape(
                ellipse(face * 0.6 + x, -0.175, 0.018, 0.075 - abs(x) * 0.25), fill=paint.dark, transform=at, clip=clip
            )
            for x in (-0.065, 0.0, 0.065)
        ]
    elif identity.pattern == "spots":
        spots = (
            (-0.12, -0.13, 0.034),
            (0.13, -0.12, 0.03),
            (0.0, -0.155, 0.026),
            (0.19, 0.03, 0.026),
            (-0.19, 0.05, 0.03),
        )
        shapes += [Shape(ellipse(x, y, r, r), fill=paint.dark, transform=at, clip=clip) for x, y, r in spots]
    elif identity.pattern == "patch":
        high = -0.09 if identity.species == "frog" else -0.02
        shapes.append(
            Shape(
                ellipse(face - 0.095 * pose.spread - 0.01, high, 0.088, 0.095), fill=paint.dark, transform=at, clip=clip
            )
        )
    for side in (-1.0, 1.0):
        shapes.append(
            Shape(
                ellipse(face + side * 0.155 * pose.spread, 0.065, 0.036, 0.024),
                fill="#ff6f7d",
                transform=at,
                clip=clip,
                opacity=0.45,
            )
        )
    if identity.pattern != "plain":
        shapes.append(Shape(skull[0].geometry, stroke=paint.line, width=OUTLINE, transform=at))
    return [
        *shapes,
        *species.muzzle(identity, pose, paint, at),
        *species.eyes(identity, pose, paint, at),
        *species.flaps(identity, pose, paint, at),
        *accessories.on_head(identity, pose, paint, at),
    ]
