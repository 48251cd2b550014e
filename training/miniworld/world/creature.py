"""One creature in four layers (back, trunk, arms, head), so that two of them can be interleaved in an embrace."""

from dataclasses import dataclass

import numpy as np

from . import accessories, coat, emblems, face, species, tails
from .pose import HEAD_SCALE, TRUNK_RX, TRUNK_RY, TRUNK_Y, Pose, solve
from .species import INK, OUTLINE, Paint, flat, solid
from .svg import Palette, Shape, ellipse, frame, limb
from .traits import CreatureTraits

LAYERS = ("back", "trunk", "arms", "head")
ARM_WIDTH, LEG_WIDTH = 0.098, 0.120
SOLE_Y = 0.11  # a foot less far below the hip is in front of the trunk, as when sitting
Layers = dict[str, list[Shape]]


@dataclass(frozen=True)
class Body:
    """State that the parts of one creature share while it is drawn.

    Attributes:
        joints: (17, 2) of `solve`.
        key: unique in the picture; names the creature's clip paths.
    """

    traits: CreatureTraits
    pose: Pose
    joints: np.ndarray
    paint: Paint
    palette: Palette
    key: str

    @property
    def torso(self) -> str:
        return frame(self.pose.hip, self.pose.size, self.pose.lean)

    @property
    def head(self) -> str:
        return frame(self.pose.head, HEAD_SCALE * self.pose.size, self.pose.head_angle)


def draw_creature(traits: CreatureTraits, pose: Pose, palette: Palette, key: str) -> Layers:
    """Draw the shapes of a creature, back to front within each layer, in scene units.

    Args:
        traits: who.
        pose: where.
        palette: receives gradients and clip paths.
        key: unique in the picture.

    Returns:
        Shapes by name of LAYERS.
    """
    body = Body(traits, pose, solve(pose), Paint.of(traits, palette), palette, key)
    arms = [_limb(body, 5 + 3 * i, ARM_WIDTH) for i in (0, 1)]
    legs = [_limb(body, 11 + 3 * i, LEG_WIDTH) for i in (0, 1)]
    far = 0 if pose.turn > 0 else 1  # turned right, the creature's left side is the far one
    sideways = abs(pose.turn) > 0.25
    seated = pose.feet[0][1] - pose.hip[1] < SOLE_Y * pose.size
    legs_behind = legs[far] if sideways else [] if seated else legs[0] + legs[1]
    legs_ahead = legs[1 - far] if sideways else legs[0] + legs[1] if seated else []
    return {
        "back": accessories.behind(traits, pose, body.paint, body.torso)
        + tails.tail(traits, pose, body.paint, body.torso)
        + (arms[far] if sideways else [])
        + legs_behind,
        "trunk": _trunk(body, legs_ahead) + accessories.around_neck(traits, pose, body.paint, body.torso),
        "arms": arms[1 - far] if sideways else arms[0] + arms[1],
        "head": _head(body),
    }


def _limb(body: Body, first: int, width: float) -> list[Shape]:
    """Draw an arm or leg that starts at keypoint `first`, with its paw."""
    size, paint = body.pose.size, body.paint
    start, joint, end = (tuple(body.joints[first + step]) for step in range(3))
    bend = limb(start, joint, end)
    paw = ellipse(end[0], end[1], width * 0.62 * size, width * 0.60 * size)
    colour = paint.mark if body.traits.pattern == "socks" else paint.belly_flat
    return [
        Shape(bend, stroke=INK, width=(width + 1.7 * OUTLINE) * size, solid=True),
        Shape(paw, fill=INK, stroke=INK, width=1.7 * OUTLINE * size, solid=True),
        Shape(bend, stroke=paint.flat_fur, width=width * size),
        *coat.on_limb(body.traits, paint, start, joint, end, width * size),
        Shape(paw, fill=colour),
    ]


def _trunk(body: Body, legs_ahead: list[Shape]) -> list[Shape]:
    """Draw trunk, belly, the legs in front of it, and the emblem over all."""
    pose, paint, at = body.pose, body.paint, body.torso
    outline = ellipse(0, TRUNK_Y, TRUNK_RX * (1 - 0.10 * abs(pose.turn)), TRUNK_RY)
    clip = body.palette.clip(f"t{body.key}", outline, at)
    x, _ = emblems.place(pose)
    belly = ellipse(x, emblems.CENTRE_Y, 0.118 * (1 - 0.2 * abs(pose.turn)), 0.125)
    return [
        solid(outline, paint.fur, at),
        *coat.on_trunk(body.traits, paint, at, clip),
        flat(belly, paint.belly_flat, at, clip),
        Shape(outline, stroke=INK, width=OUTLINE, transform=at),
        *legs_ahead,
        *emblems.emblem(body.traits, pose, paint, at),
    ]


def _head(body: Body) -> list[Shape]:
    traits, pose, paint, at = body.traits, body.pose, body.paint, body.head
    outline = species.skull(traits)
    clip = body.palette.clip(f"h{body.key}", outline, at)
    return [
        *species.ears(traits, pose, paint, at),
        solid(outline, paint.fur, at),
        *coat.on_head(traits, pose, paint, at, clip),
        *face.cheeks(traits, pose, paint, at, clip),
        Shape(outline, stroke=INK, width=OUTLINE, transform=at),
        *face.muzzle(traits, pose, paint, at),
        *face.eyes(traits, pose, paint, at),
        *species.flaps(traits, pose, paint, at),
        *accessories.on_head(traits, pose, paint, at),
    ]
