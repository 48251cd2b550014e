"""What a creature wears. Head units for hats and glasses, torso units for what hangs from the neck."""

from .pose import FACE_SHIFT, Pose
from .species import Paint, solid
from .svg import Shape, ellipse, path, polygon
from .traits import CreatureTraits


def behind(identity: CreatureTraits, pose: Pose, paint: Paint, torso: str) -> list[Shape]:
    """Drawn behind the body: a cape."""
    if identity.accessory != "cape":
        return []
    swing = -0.09 * pose.turn
    cloth = path(
        f"M{-0.1 * pose.spread:.3f} -0.30Q{-0.27 + swing:.3f} -0.12 {-0.25 + 1.6 * swing:.3f} 0.11"
        f"Q{swing:.3f} 0.17 {0.25 + 1.6 * swing:.3f} 0.11Q{0.27 + swing:.3f} -0.12 {0.1 * pose.spread:.3f} -0.30Z"
    )
    return [solid(cloth, paint.accent, paint.accent_line, torso)]


def around_neck(identity: CreatureTraits, pose: Pose, paint: Paint, torso: str) -> list[Shape]:
    """Drawn over the body and under the head's chin: scarf, bow tie, the cape's collar."""
    x = 0.05 * pose.turn
    if identity.accessory == "cape":
        return [
            solid(
                path(f"M{x - 0.13:.3f} -0.285Q{x:.3f} -0.20 {x + 0.13:.3f} -0.285"),
                "none",
                paint.accent_line,
                torso,
                0.055,
            ),
            Shape(
                path(f"M{x - 0.13:.3f} -0.285Q{x:.3f} -0.20 {x + 0.13:.3f} -0.285"),
                stroke=paint.accent,
                width=0.035,
                transform=torso,
            ),
        ]
    if identity.accessory == "scarf":
        side = -1.0 if pose.turn > 0 else 1.0
        end = polygon(
            (x + side * 0.045, -0.25), (x + side * 0.125, -0.24), (x + side * 0.135, -0.075), (x + side * 0.055, -0.08)
        )
        loop = path(f"M{x - 0.145:.3f} -0.28Q{x:.3f} -0.205 {x + 0.145:.3f} -0.28")
        return [
            solid(end, paint.accent, paint.accent_line, torso, 0.014),
            solid(loop, "none", paint.accent_line, torso, 0.095),
            Shape(loop, stroke=paint.accent, width=0.072, transform=torso),
        ]
    if identity.accessory == "bow tie":
        wings = path(
            f"M{x:.3f} -0.245L{x - 0.115:.3f} -0.315Q{x - 0.135:.3f} -0.24 {x - 0.115:.3f} -0.17L{x:.3f} -0.235"
            f"L{x + 0.115:.3f} -0.17Q{x + 0.135:.3f} -0.24 {x + 0.115:.3f} -0.315Z"
        )
        return [
            solid(wings, paint.accent, paint.accent_line, torso, 0.015),
            solid(ellipse(x, -0.24, 0.032, 0.036), paint.accent, paint.accent_line, torso, 0.014),
        ]
    return []


def on_head(identity: CreatureTraits, pose: Pose, paint: Paint, head: str) -> list[Shape]:
    """Drawn last: hats, flower, glasses."""
    back = -0.045 * pose.turn
    line = paint.accent_line
    if identity.accessory == "party hat":
        cone = path(f"M{back - 0.1:.3f} -0.155Q{back:.3f} -0.115 {back + 0.1:.3f} -0.155L{back + 0.01:.3f} -0.385Z")
        band = path(f"M{back - 0.062:.3f} -0.215Q{back:.3f} -0.18 {back + 0.065:.3f} -0.215")
        return [
            solid(cone, paint.accent, line, head, 0.016),
            Shape(band, stroke="#ffffff", width=0.026, transform=head, opacity=0.85),
            solid(ellipse(back + 0.01, -0.385, 0.036, 0.036), "#ffffff", line, head, 0.013),
        ]
    if identity.accessory == "crown":
        spikes = polygon(
            (back - 0.11, -0.145),
            (back - 0.135, -0.30),
            (back - 0.055, -0.225),
            (back, -0.325),
            (back + 0.055, -0.225),
            (back + 0.135, -0.30),
            (back + 0.11, -0.145),
        )
        return [
            solid(spikes, paint.accent, line, head, 0.016),
            Shape(ellipse(back, -0.19, 0.024, 0.024), fill="#ffffff", transform=head, opacity=0.9),
        ]
    if identity.accessory == "flower":
        x, y = 0.135 + back, -0.135
        petals = [
            solid(ellipse(x + dx, y + dy, 0.042, 0.042), paint.accent, line, head, 0.012)
            for dx, dy in ((0.0, -0.05), (0.048, -0.015), (0.03, 0.042), (-0.03, 0.042), (-0.048, -0.015))
        ]
        return [*petals, Shape(ellipse(x, y, 0.034, 0.034), fill="#fff3b0", stroke=line, width=0.008, transform=head)]
    if identity.accessory == "glasses":
        shapes = []
        gap, centre = 0.095 * pose.spread + 0.01, FACE_SHIFT * pose.turn + pose.gaze[0]
        lift = -0.145 if identity.species == "frog" else -0.015
        gap = max(gap, 0.07) if identity.species != "frog" else 0.12 * (0.72 + 0.28 * pose.spread)
        for side in (-1.0, 1.0):
            if abs(pose.turn) > 0.8 and side * pose.turn > 0:
                continue
            rim = ellipse(centre + side * gap, lift + pose.gaze[1], 0.076, 0.07)
            shapes += [
                Shape(rim, fill="#ffffff", opacity=0.35, transform=head),
                Shape(rim, stroke=line, width=0.032, transform=head),
                Shape(rim, stroke=paint.accent, width=0.018, transform=head),
            ]
        bridge = path(
            f"M{centre - gap + 0.07:.3f} {lift:.3f}"
            f"Q{centre:.3f} {lift - 0.025:.3f} {centre + gap - 0.07:.3f} {lift:.3f}"
        )
        return [*shapes, Shape(bridge, stroke=line, width=0.024, transform=head)] if abs(pose.turn) <= 0.8 else shapes
    return []
