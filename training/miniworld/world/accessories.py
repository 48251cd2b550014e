"""Accessories of a creature, a quarter of its height or more. Head units for hats and glasses, torso units below."""

from .face import eye_centre
from .pose import Pose
from .species import INK, Paint, flat, solid
from .svg import Shape, ellipse, path, polygon
from .traits import CreatureTraits


def behind(traits: CreatureTraits, pose: Pose, paint: Paint, torso: str) -> list[Shape]:
    """Draw what is worn behind the body: a cape."""
    if traits.accessory != "cape":
        return []
    swing = -0.10 * pose.turn
    cloth = path(
        f"M{-0.10 * pose.spread:.3f} -0.28Q{-0.29 + swing:.3f} -0.12 {-0.29 + 1.6 * swing:.3f} 0.10"
        f"Q{swing:.3f} 0.175 {0.29 + 1.6 * swing:.3f} 0.10Q{0.29 + swing:.3f} -0.12 {0.10 * pose.spread:.3f} -0.28Z"
    )
    return [solid(cloth, paint.accent, torso)]


def around_neck(traits: CreatureTraits, pose: Pose, paint: Paint, torso: str) -> list[Shape]:
    """Draw what is worn over the body and under the chin: scarf, bow tie, the cape's collar."""
    x = 0.05 * pose.turn
    if traits.accessory == "cape":
        collar = path(f"M{x - 0.135:.3f} -0.265Q{x:.3f} -0.20 {x + 0.135:.3f} -0.265")
        return [
            Shape(collar, stroke=INK, width=0.085, transform=torso, solid=True),
            Shape(collar, stroke=paint.accent, width=0.052, transform=torso),
        ]
    if traits.accessory == "scarf":
        side = -1.0 if pose.turn > 0 else 1.0
        near, far = x + side * 0.035, x + side * 0.135
        end = polygon((near, -0.23), (far, -0.23), (far + side * 0.015, -0.045), (near + side * 0.015, -0.045))
        loop = path(f"M{x - 0.155:.3f} -0.265Q{x:.3f} -0.195 {x + 0.155:.3f} -0.265")
        return [
            solid(end, paint.accent, torso, 0.022),
            Shape(loop, stroke=INK, width=0.125, transform=torso, solid=True),
            Shape(loop, stroke=paint.accent, width=0.085, transform=torso),
        ]
    if traits.accessory == "bow tie":
        wings = path(
            f"M{x:.3f} -0.225L{x - 0.15:.3f} -0.315Q{x - 0.175:.3f} -0.225 {x - 0.15:.3f} -0.135L{x:.3f} -0.205"
            f"L{x + 0.15:.3f} -0.135Q{x + 0.175:.3f} -0.225 {x + 0.15:.3f} -0.315Z"
        )
        return [
            solid(wings, paint.accent, torso, 0.022),
            solid(ellipse(x, -0.222, 0.042, 0.046), paint.accent, torso, 0.020),
        ]
    return []


def on_head(traits: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    """Draw what is worn on the head, last of all: hats, flower, glasses."""
    build = {"party hat": _party_hat, "crown": _crown, "flower": _flower, "glasses": _glasses}.get(traits.accessory)
    return build(traits, pose, paint, head) if build else []


def _party_hat(traits: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    x = -0.045 * pose.turn
    cone = path(f"M{x - 0.135:.3f} -0.175Q{x:.3f} -0.115 {x + 0.135:.3f} -0.175L{x + 0.01:.3f} -0.47Z")
    band = path(f"M{x - 0.085:.3f} -0.265Q{x:.3f} -0.215 {x + 0.09:.3f} -0.265")
    return [
        solid(cone, paint.accent, head, 0.024),
        Shape(band, stroke="#fff6d8", width=0.042, transform=head),
        solid(ellipse(x + 0.01, -0.475, 0.052, 0.052), "#fff6d8", head, 0.020),
    ]


def _crown(traits: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    x = -0.045 * pose.turn
    spikes = polygon(
        (x - 0.145, -0.165),
        (x - 0.175, -0.375),
        (x - 0.075, -0.275),
        (x, -0.415),
        (x + 0.075, -0.275),
        (x + 0.175, -0.375),
        (x + 0.145, -0.165),
    )
    return [solid(spikes, paint.accent, head, 0.024), flat(ellipse(x, -0.225, 0.034, 0.034), "#fff6d8", head)]


def _flower(traits: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    x, y = 0.185 - 0.045 * pose.turn, -0.175
    petals = ((0.0, -0.072), (0.070, -0.022), (0.044, 0.060), (-0.044, 0.060), (-0.070, -0.022))
    return [
        *(solid(ellipse(x + dx, y + dy, 0.055, 0.055), paint.accent, head, 0.020) for dx, dy in petals),
        solid(ellipse(x, y, 0.046, 0.046), "#ffd95e", head, 0.014),
    ]


def _glasses(traits: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    centres = [eye_centre(traits, pose, side) for side in (-1.0, 1.0)]
    (left, y), (right, _) = centres
    bridge = path(f"M{left + 0.09:.3f} {y:.3f}Q{(left + right) / 2:.3f} {y - 0.02:.3f} {right - 0.09:.3f} {y:.3f}")
    shapes = [Shape(bridge, stroke=INK, width=0.036, transform=head)]
    for x, _ in centres:
        rim = ellipse(x, y, 0.105, 0.102)
        shapes += [
            Shape(rim, stroke=INK, width=0.056, transform=head, solid=True),
            Shape(rim, stroke=paint.accent, width=0.032, transform=head),
        ]
    return shapes
