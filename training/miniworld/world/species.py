"""Heads and ears: the outline by which a species is recognised.

All coordinates are head units (origin at the head's middle, y down, the creature's height is 1); `at` is the SVG
transform of the head.
"""

from dataclasses import dataclass

from .colour import css, shade
from .pose import HEAD_RX, HEAD_RY, Pose
from .svg import Palette, Shape, ellipse, path, polygon
from .traits import ACCENTS, BELLIES, EMBLEM_COLOURS, FURS, CreatureTraits

INK = "#33213a"
OUTLINE = 0.027
DARK_FUR = 0.65  # below this lightness a pattern is lighter than the fur, not darker


@dataclass(frozen=True)
class Paint:
    """The CSS paints of one creature, decided once per picture.

    Attributes:
        fur, belly, accent: softly shaded.
        flat_fur, mark, belly_flat: plain colours; `mark` is the pattern's, of another lightness than the fur.
        emblem: plain colour of the emblem.
    """

    fur: str
    flat_fur: str
    mark: str
    belly: str
    belly_flat: str
    accent: str
    emblem: str

    @classmethod
    def of(cls, traits: CreatureTraits, palette: Palette) -> "Paint":
        fur, belly = FURS[traits.fur], BELLIES[traits.belly]
        mark = shade(fur, 0.20, 0.8) if fur[0] < DARK_FUR else shade(fur, -0.23, 1.15)
        return cls(
            fur=palette.soft(fur, 0.55),
            flat_fur=css(shade(fur, -0.02)),
            mark=css(mark),
            belly=palette.soft(belly, 0.3),
            belly_flat=css(belly),
            accent=palette.soft(ACCENTS[traits.accent], 0.5),
            emblem=css(EMBLEM_COLOURS[traits.emblem_colour]),
        )


def solid(geometry: str, fill: str, transform: str, width: float = OUTLINE) -> Shape:
    """Make a filled shape with the ink outline, part of the silhouette."""
    return Shape(geometry, fill=fill, stroke=INK, width=width, transform=transform, solid=True)


def flat(geometry: str, fill: str, transform: str, clip: str = "") -> Shape:
    """Make a filled shape without outline, inside other shapes."""
    return Shape(geometry, fill=fill, transform=transform, clip=clip)


def ears(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw the ears, horns and combs behind the head."""
    build = _EARS.get(traits.species)
    if build is None:
        return []
    tips = paint.mark if traits.pattern == "socks" else paint.fur
    shift, wide = -0.05 * pose.turn, 0.75 + 0.25 * pose.spread
    shapes: list[Shape] = []
    for side in (-1.0, 1.0):
        shapes += build(side, wide, shift, tips, paint, at)
    if traits.species == "dragon":
        comb = polygon((shift - 0.07, -0.20), (shift, -0.335), (shift + 0.07, -0.20))
        shapes.insert(0, solid(comb, paint.mark, at))
    return shapes


def _bear(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    x = side * 0.195 * wide + shift
    return [
        solid(ellipse(x, -0.185, 0.088, 0.085), tips, at),
        flat(ellipse(x, -0.175, 0.044, 0.042), paint.belly_flat, at),
    ]


def _mouse(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    x = side * 0.245 * wide + shift
    return [
        solid(ellipse(x, -0.185, 0.142, 0.138), tips, at),
        flat(ellipse(x, -0.175, 0.086, 0.084), paint.belly_flat, at),
    ]


def _rabbit(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    x = side * 0.125 * wide + shift
    tip = x + side * 0.035
    outer = path(
        f"M{x - 0.07:.3f} -0.14C{tip - 0.12:.3f} -0.40 {tip - 0.075:.3f} -0.56 {tip:.3f} -0.56"
        f"C{tip + 0.075:.3f} -0.56 {tip + 0.12:.3f} -0.40 {x + 0.07:.3f} -0.14Z"
    )
    return [solid(outer, tips, at), flat(ellipse((x + tip) / 2, -0.36, 0.036, 0.125), paint.belly_flat, at)]


def _cat(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    return _pointed(side, wide, shift, (0.055, 0.205, 0.345, 0.262), tips, paint, at)


def _fox(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    return _pointed(side, wide, shift, (0.045, 0.265, 0.42, 0.285), paint.mark, paint, at)


def _pointed(
    side: float,
    wide: float,
    shift: float,
    size: tuple[float, float, float, float],
    tips: str,
    paint: Paint,
    at: str,
) -> list[Shape]:
    """Draw a triangular ear; `size` is inner foot, tip (x, height), outer foot."""
    inner, tip, height, outer = size

    def x(value: float) -> float:
        return side * value * wide + shift

    ear = polygon((x(inner), -0.175), (x(tip), -height), (x(outer), -0.06))
    hollow = polygon((x(inner + 0.055), -0.19), (x(tip - 0.008), -height + 0.085), (x(outer - 0.055), -0.10))
    return [solid(ear, tips, at), flat(hollow, paint.belly_flat, at)]


def _frog(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    return [solid(ellipse(side * 0.15 * wide - shift, -0.165, 0.118, 0.115), tips, at)]


def _dragon(side: float, wide: float, shift: float, tips: str, paint: Paint, at: str) -> list[Shape]:
    x = side * 0.17 * wide + shift
    horn = path(
        f"M{x - side * 0.055:.3f} -0.17Q{x + side * 0.01:.3f} -0.30 {x + side * 0.10:.3f} -0.37"
        f"Q{x + side * 0.115:.3f} -0.24 {x + side * 0.06:.3f} -0.15Z"
    )
    fin = path(
        f"M{side * 0.24 * wide:.3f} -0.05L{side * 0.375 * wide:.3f} -0.10L{side * 0.335 * wide:.3f} 0.01"
        f"L{side * 0.375 * wide:.3f} 0.085L{side * 0.24 * wide:.3f} 0.10Z"
    )
    return [solid(fin, paint.mark, at), solid(horn, paint.belly, at)]


_EARS = {
    "bear": _bear,
    "mouse": _mouse,
    "rabbit": _rabbit,
    "cat": _cat,
    "fox": _fox,
    "frog": _frog,
    "dragon": _dragon,
}


def flaps(traits: CreatureTraits, pose: Pose, paint: Paint, at: str) -> list[Shape]:
    """Draw what hangs in front of the head: a dog's ears."""
    if traits.species != "dog":
        return []
    shapes = []
    for side in (-1.0, 1.0):
        x = side * 0.235 * (0.75 + 0.25 * pose.spread) - 0.05 * pose.turn
        ear = path(
            f"M{x - side * 0.085:.3f} -0.205C{x + side * 0.05:.3f} -0.27 {x + side * 0.135:.3f} -0.11 "
            f"{x + side * 0.115:.3f} 0.06C{x + side * 0.105:.3f} 0.17 {x - side * 0.005:.3f} 0.17 "
            f"{x - side * 0.02:.3f} 0.06C{x - side * 0.025:.3f} -0.06 {x - side * 0.05:.3f} -0.12 "
            f"{x - side * 0.085:.3f} -0.205Z"
        )
        shapes.append(solid(ear, paint.mark, at))
    return shapes


def skull(traits: CreatureTraits) -> str:
    """Return the geometry of the head itself."""
    rx, ry = HEAD_RX, HEAD_RY
    if traits.species == "fox":  # pointed cheeks
        return path(
            f"M0 {-ry:.3f}C{rx - 0.03:.3f} {-ry:.3f} {rx + 0.01:.3f} -0.06 {rx + 0.075:.3f} 0.10"
            f"Q{rx - 0.07:.3f} {ry + 0.01:.3f} 0 {ry:.3f}Q{-rx + 0.07:.3f} {ry + 0.01:.3f} {-rx - 0.075:.3f} 0.10"
            f"C{-rx - 0.01:.3f} -0.06 {-rx + 0.03:.3f} {-ry:.3f} 0 {-ry:.3f}Z"
        )
    if traits.species == "cat":  # full cheeks
        return path(
            f"M0 {-ry:.3f}C{rx - 0.04:.3f} {-ry:.3f} {rx + 0.005:.3f} -0.10 {rx + 0.02:.3f} 0.045"
            f"C{rx + 0.03:.3f} 0.15 {rx - 0.12:.3f} {ry:.3f} 0 {ry:.3f}"
            f"C{-rx + 0.12:.3f} {ry:.3f} {-rx - 0.03:.3f} 0.15 "
            f"{-rx - 0.02:.3f} 0.045C{-rx - 0.005:.3f} -0.10 {-rx + 0.04:.3f} {-ry:.3f} 0 {-ry:.3f}Z"
        )
    if traits.species == "frog":
        return ellipse(0, 0.02, rx * 1.1, ry * 0.90)
    return ellipse(0, 0, rx, ry)
