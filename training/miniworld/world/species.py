"""Heads, ears and tails: the outline by which a species is told.

All coordinates are head units (origin at the head's centre, y down, the creature's height is 1) unless said otherwise;
`face` is the sideways shift of the face when the creature turns.
"""

from dataclasses import dataclass

from .colour import css, shade
from .pose import FACE_SHIFT, Pose
from .svg import Palette, Shape, ellipse, path, polygon
from .traits import CreatureTraits

HEAD_RX, HEAD_RY = 0.225, 0.195
OUTLINE = 0.017


@dataclass(frozen=True)
class Paint:
    """The paints of one creature, decided once per picture."""

    fur: str
    belly: str
    dark: str
    line: str
    accent: str
    accent_line: str
    ink: str = "#2b2230"

    @classmethod
    def of(cls, identity: CreatureTraits, palette: Palette) -> "Paint":
        fur = identity.fur_colour
        return cls(
            fur=palette.soft(fur),
            belly=palette.soft(identity.belly_colour, 0.5),
            dark=palette.soft(shade(fur, -0.23, 0.95), 0.7),
            line=css(shade(fur, -0.36, 0.75)),
            accent=palette.soft(identity.accent_colour, 0.7),
            accent_line=css(shade(identity.accent_colour, -0.26)),
        )


def solid(geometry: str, fill: str, line: str, transform: str, width: float = OUTLINE) -> Shape:
    return Shape(geometry, fill=fill, stroke=line, width=width, transform=transform, solid=True)


def ears(identity: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """What stands on the head and is drawn behind it."""
    shift, wide = -0.05 * pose.turn, 0.72 + 0.28 * pose.spread
    tips = paint.dark if identity.pattern == "socks" else paint.fur
    shapes: list[Shape] = []
    for side in (-1.0, 1.0):
        x = side * 0.155 * wide + shift
        if identity.species == "bear":
            shapes += [
                solid(ellipse(x, -0.165, 0.075, 0.072), tips, paint.line, at),
                Shape(ellipse(x, -0.155, 0.04, 0.038), fill=paint.belly, transform=at),
            ]
        elif identity.species == "mouse":
            shapes += [
                solid(ellipse(x * 1.28, -0.165, 0.118, 0.115), tips, paint.line, at),
                Shape(ellipse(x * 1.28, -0.155, 0.075, 0.073), fill=paint.belly, transform=at),
            ]
        elif identity.species == "rabbit":
            tip = (x * 1.05 + side * 0.02, -0.42)
            ear = path(
                f"M{x - 0.055:.3f} -0.12Q{tip[0] - 0.1:.3f} {tip[1]:.3f} {tip[0]:.3f} {tip[1]:.3f}"
                f"Q{tip[0] + 0.1:.3f} {tip[1]:.3f} {x + 0.055:.3f} -0.12Z"
            )
            shapes += [
                solid(ear, tips, paint.line, at),
                Shape(ellipse((x + tip[0]) / 2, -0.28, 0.03, 0.095), fill=paint.belly, transform=at),
            ]
        elif identity.species in ("cat", "fox"):
            height, lean = (0.30, 0.035) if identity.species == "cat" else (0.36, 0.05)
            outer, inner = x + side * 0.085, x - side * 0.065
            tip = (x + side * lean, -height)
            shapes += [
                solid(polygon((inner, -0.14), tip, (outer, -0.06)), tips, paint.line, at),
                Shape(
                    polygon(
                        (x - side * 0.025, -0.14), (tip[0] - side * 0.002, tip[1] + 0.07), (x + side * 0.05, -0.11)
                    ),
                    fill=paint.belly,
                    transform=at,
                ),
            ]
        elif identity.species == "frog":
            shapes.append(
                solid(ellipse(side * 0.12 * wide + 0.10 * pose.turn, -0.155, 0.085, 0.08), tips, paint.line, at)
            )
        elif identity.species == "dragon":
            horn = polygon((x - 0.035, -0.15), (x + side * 0.06, -0.31), (x + 0.045, -0.14))
            shapes.append(solid(horn, paint.belly, paint.line, at))
    if identity.species == "dragon":
        shapes = [
            solid(polygon((-0.05 + shift, -0.17), (shift, -0.275), (0.05 + shift, -0.17)), paint.dark, paint.line, at),
            *shapes,
        ]
    return shapes


def flaps(identity: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """What hangs in front of the head: a dog's ears."""
    if identity.species != "dog":
        return []
    shapes = []
    for side in (-1.0, 1.0):
        x = side * 0.205 * (0.72 + 0.28 * pose.spread) - 0.05 * pose.turn
        ear = path(
            f"M{x - side * 0.07:.3f} -0.165Q{x + side * 0.1:.3f} -0.2 {x + side * 0.075:.3f} 0.06"
            f"Q{x + side * 0.02:.3f} 0.16 {x - side * 0.035:.3f} 0.05"
            f"Q{x - side * 0.04:.3f} -0.08 {x - side * 0.07:.3f} -0.165Z"
        )
        shapes.append(solid(ear, paint.dark, paint.line, at))
    return shapes


def skull(identity: CreatureTraits, paint: Paint, at: str) -> list[Shape]:
    """The head itself."""
    rx, ry = HEAD_RX, HEAD_RY
    if identity.species == "fox":  # pointed cheeks
        cheeks = path(
            f"M0 {-ry:.3f}C{rx:.3f} {-ry:.3f} {rx + 0.015:.3f} -0.02 {rx + 0.06:.3f} 0.085"
            f"Q{rx - 0.06:.3f} {ry + 0.015:.3f} 0 {ry:.3f}Q{-rx + 0.06:.3f} {ry + 0.015:.3f} {-rx - 0.06:.3f} 0.085"
            f"C{-rx - 0.015:.3f} -0.02 {-rx:.3f} {-ry:.3f} 0 {-ry:.3f}Z"
        )
        return [solid(cheeks, paint.fur, paint.line, at)]
    if identity.species == "frog":
        return [solid(ellipse(0, 0.015, rx * 1.1, ry * 0.92), paint.fur, paint.line, at)]
    return [solid(ellipse(0, 0, rx, ry), paint.fur, paint.line, at)]


def muzzle(identity: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Snout, nose, mouth; it pokes out of the head in profile."""
    x, y = 0.165 * pose.turn + pose.gaze[0], 0.075 + pose.gaze[1]
    nose_x = 0.2 * pose.turn + pose.gaze[0]
    if identity.species == "frog":
        smile = path(f"M{x - 0.125:.3f} {y - 0.03:.3f}Q{x:.3f} {y + 0.085:.3f} {x + 0.125:.3f} {y - 0.03:.3f}")
        nostrils = [
            Shape(ellipse(x + dx, y - 0.055, 0.011, 0.009), fill=paint.line, transform=at) for dx in (-0.025, 0.025)
        ]
        return [
            Shape(ellipse(x, y + 0.05, 0.13, 0.06), fill=paint.belly, transform=at, opacity=0.9),
            Shape(smile, stroke=paint.line, width=0.016, transform=at),
            *nostrils,
        ]
    size = {
        "bear": (0.10, 0.078),
        "cat": (0.085, 0.06),
        "rabbit": (0.082, 0.065),
        "fox": (0.10, 0.07),
        "mouse": (0.078, 0.062),
        "dog": (0.118, 0.085),
        "dragon": (0.128, 0.088),
    }[identity.species]
    width = {"bear": 0.036, "dog": 0.042, "fox": 0.032, "dragon": 0.0}.get(identity.species, 0.024)
    snout = Shape(
        ellipse(x, y, size[0], size[1]),
        fill=paint.belly,
        stroke=paint.line,
        width=0.012 * abs(pose.turn) ** 2,
        transform=at,
        solid=True,
    )
    mouth = path(
        f"M{nose_x - 0.04:.3f} {y + 0.032:.3f}Q{nose_x - 0.018:.3f} {y + 0.056:.3f} {nose_x:.3f} {y + 0.026:.3f}"
        f"Q{nose_x + 0.018:.3f} {y + 0.056:.3f} {nose_x + 0.04:.3f} {y + 0.032:.3f}"
    )
    shapes = [snout, Shape(mouth, stroke=paint.ink, width=0.012, transform=at)]
    if identity.species == "dragon":
        return shapes + [
            Shape(ellipse(nose_x + dx, y - 0.03, 0.014, 0.011), fill=paint.line, transform=at) for dx in (-0.04, 0.04)
        ]
    shapes.append(Shape(ellipse(nose_x, y - 0.028, width, width * 0.78), fill=paint.ink, transform=at))
    if identity.species in ("cat", "mouse", "rabbit"):
        for side in (-1, 1):
            for lift in (-0.012, 0.018):
                whisker = path(
                    f"M{x + side * 0.085:.3f} {y + lift / 2:.3f}L{x + side * 0.165:.3f} {y + lift * 1.6:.3f}"
                )
                shapes.append(Shape(whisker, stroke=paint.line, width=0.007, transform=at, opacity=0.7))
    return shapes


def eyes(identity: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Two shining eyes, or two arcs when closed; the far one disappears in profile."""
    shapes: list[Shape] = []
    gap = 0.095 * pose.spread + 0.01
    for side in (-1.0, 1.0):
        if abs(pose.turn) > 0.8 and side * pose.turn > 0:
            continue
        x, y = FACE_SHIFT * pose.turn + side * gap + pose.gaze[0], -0.015 + pose.gaze[1]
        if identity.species == "frog":
            y -= 0.13
            x = side * 0.12 * (0.72 + 0.28 * pose.spread) + 0.12 * pose.turn
            shapes.append(Shape(ellipse(x, y, 0.056, 0.056), fill="#ffffff", transform=at))
        if pose.eyes_closed:
            lid = path(f"M{x - 0.035:.3f} {y - 0.005:.3f}Q{x:.3f} {y + 0.035:.3f} {x + 0.035:.3f} {y - 0.005:.3f}")
            shapes.append(Shape(lid, stroke=paint.ink, width=0.017, transform=at))
            continue
        shapes += [
            Shape(ellipse(x, y, 0.034, 0.042), fill=paint.ink, transform=at),
            Shape(ellipse(x - 0.011, y - 0.015, 0.0125, 0.0135), fill="#ffffff", transform=at),
        ]
    return shapes
