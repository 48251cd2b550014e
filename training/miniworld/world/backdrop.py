"""Place and light of a scene: few large pale shapes, so that creatures stand out at 128 pixels.

Light colours the sky alone: a creature looks the same by day and at sunset.
"""

from dataclasses import dataclass, replace

import numpy as np

from .rng_streams import Stream, generator
from .svg import Palette, Shape, ellipse, path, polygon

HORIZON = 0.68
PLACES = ("meadow", "beach", "snow", "forest", "room", "desert", "night", "city")
LIGHTS = ("day", "sunset", "moonlight")

# sky top, sky bottom, ground top, ground bottom
_COLOURS = {
    "meadow": ("#b5e3fa", "#e9f7fe", "#b4e08b", "#8bcb72"),
    "beach": ("#a4def7", "#e0f5fc", "#f8e8c0", "#efd7a0"),
    "snow": ("#cfe2f4", "#f1f7fc", "#fcfdff", "#dfebf6"),
    "forest": ("#cdeadb", "#ecf7e9", "#9cc983", "#78ad6c"),
    "room": ("#fbe3d0", "#fdf0e3", "#dcb893", "#c29a76"),
    "desert": ("#fde0b4", "#fef1d8", "#f2cb92", "#e2b274"),
    "night": ("#6d74b4", "#9aa0d6", "#8592bd", "#6f7ca9"),
    "city": ("#c9d6ee", "#edf2fa", "#cbced7", "#b1b5c2"),
}
# sky top, sky bottom of open places whose light is not the day's; a window shows the top colour
_SKIES = {"sunset": ("#ffb98c", "#ffe9cd"), "moonlight": ("#838bcf", "#c4caf0")}


@dataclass(frozen=True)
class Backdrop:
    """A place and its light.

    Attributes:
        place: one of PLACES.
        light: one of LIGHTS.
        side: -1 lit from the left, 1 from the right.
        seed: decides where hills, trees and flowers stand.
    """

    place: str
    light: str
    side: float
    seed: int


def draw_backdrop(rng: np.random.Generator) -> Backdrop:
    """Draw a place and light, uniform except that two scenes in three are in plain daylight."""
    return Backdrop(
        place=str(rng.choice(PLACES)),
        light=str(rng.choice(LIGHTS, p=(0.66, 0.17, 0.17))),
        side=float(rng.choice((-1.0, 1.0))),
        seed=int(rng.integers(2**31)),
    )


def paint_backdrop(backdrop: Backdrop, palette: Palette) -> list[Shape]:
    """Paint sky, large things and ground, back to front, in scene units."""
    rng = generator(backdrop.seed, Stream.BACKDROP)
    top, low, ground, deep = _COLOURS[backdrop.place]
    if backdrop.place not in ("room", "night"):
        top, low = _SKIES.get(backdrop.light, (top, low))
    sky = Shape('rect x="0" y="0" width="1" height="1"', fill=palette.vertical("sky", top, low))
    line = HORIZON + float(rng.uniform(-0.02, 0.02))
    bulge = {"meadow": 0.05, "desert": 0.06, "snow": 0.05}.get(backdrop.place, 0.0)
    earth = path(f"M0 {line:.3f}Q0.5 {line - bulge:.3f} 1 {line:.3f}L1 1L0 1Z")
    floor = Shape(earth, fill=palette.vertical("ground", ground, deep))
    far, near = _PLACES[backdrop.place](float(rng.uniform(0.12, 0.88)), rng, line, palette)
    if backdrop.place == "room" and backdrop.light in _SKIES:
        far[0] = replace(far[0], fill=_SKIES[backdrop.light][0])  # the window
    return [sky, *far, floor, *near]


Parts = tuple[list[Shape], list[Shape]]  # behind the ground, on it


def _meadow(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint clouds, a far hill, flowers."""
    far = [_cloud(x, 0.15), Shape(ellipse(x - 0.2, line + 0.03, 0.42, 0.13), fill="#9fd786")]
    spots = rng.uniform((0.04, line + 0.07), (0.96, 0.96), (5, 2))
    near = [
        Shape(ellipse(fx, fy, 0.018, 0.018), fill=str(rng.choice(("#ffffff", "#ffe68a", "#ffb0c2"))))
        for fx, fy in spots
    ]
    return far, near


def _beach(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint the sun over the sea."""
    sea = f'rect x="0" y="{line - 0.13:.3f}" width="1" height="0.2"'
    return [
        Shape(ellipse(x, 0.16, 0.085, 0.085), fill="#ffe791"),
        Shape(sea, fill=palette.vertical("sea", "#7cc8e8", "#aee1ee")),
    ], []


def _snow(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint two peaks."""
    peaks = [
        polygon((c - 0.36, line + 0.05), (c, line - h), (c + 0.36, line + 0.05))
        for c, h in ((x, 0.38), (x - 0.5, 0.28))
    ]
    return [Shape(peak, fill=colour) for peak, colour in zip(peaks, ("#bccfe6", "#cbdaed"))], []


def _forest(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint four trees."""
    trees = []
    for c in np.linspace(0.06, 0.94, 4) + rng.uniform(-0.05, 0.05, 4):
        height = rng.uniform(0.42, 0.56)
        tree = polygon((c - 0.15, line + 0.03), (c, line - height), (c + 0.15, line + 0.03))
        trees.append(Shape(tree, fill=str(rng.choice(("#8fc095", "#9ccba0")))))
    return trees, []


def _room(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint a window, a skirting board, a rug."""
    left = x * 0.55 + 0.05
    window = f'rect x="{left:.3f}" y="0.08" width="0.30" height="0.28" rx="0.03"'
    far = [
        Shape(window, fill="#d8effa", stroke="#fffaf3", width=0.035),
        Shape(f'rect x="0" y="{line - 0.04:.3f}" width="1" height="0.06"', fill="#fff7ec"),
    ]
    rug = ellipse(0.5, (line + 1) / 2 + 0.03, 0.44, 0.1)
    return far, [Shape(rug, fill=str(rng.choice(("#e3a397", "#a6c6dd", "#bcd3a4"))))]


def _desert(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint the sun and a cactus."""
    cactus = path(
        f"M{x:.3f} {line + 0.03:.3f}L{x:.3f} {line - 0.24:.3f}M{x:.3f} {line - 0.06:.3f}L{x + 0.09:.3f} "
        f"{line - 0.06:.3f}L{x + 0.09:.3f} {line - 0.15:.3f}"
    )
    sun = Shape(ellipse((x + 0.5) % 1, 0.17, 0.09, 0.09), fill="#fff6d6")
    return [sun, Shape(cactus, stroke="#a4c890", width=0.065)], []


def _night(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint stars and the moon."""
    stars = rng.uniform((0.03, 0.03), (0.97, 0.5), (7, 2))
    far = [Shape(ellipse(sx, sy, 0.012, 0.012), fill="#fff9e0") for sx, sy in stars]
    moon = [
        Shape(ellipse(x, 0.16, 0.085, 0.085), fill="#fff6d0"),
        Shape(ellipse(x + 0.04, 0.145, 0.07, 0.07), fill="#757cba"),
    ]
    return [*far, *moon], []


def _city(x: float, rng: np.random.Generator, line: float, palette: Palette) -> Parts:
    """Paint houses and the marks of a road."""
    houses = []
    for at in np.arange(-0.06, 1.0, 0.27):
        height = rng.uniform(0.25, 0.48)
        house = f'rect x="{at:.3f}" y="{line - height:.3f}" width="0.24" height="{height + 0.02:.3f}"'
        houses.append(Shape(house, fill=str(rng.choice(("#b7c4df", "#c6bbd9", "#d3c5cd")))))
    road = [
        Shape(f'rect x="{at:.2f}" y="0.935" width="0.15" height="0.03"', fill="#f2f4f8") for at in (0.05, 0.42, 0.79)
    ]
    return houses, road


_PLACES = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "room": _room,
    "desert": _desert,
    "night": _night,
    "city": _city,
}


def _cloud(x: float, y: float) -> Shape:
    puff = (
        f"M{x - 0.16:.3f} {y:.3f}Q{x - 0.16:.3f} {y - 0.07:.3f} {x - 0.06:.3f} {y - 0.06:.3f}"
        f"Q{x:.3f} {y - 0.13:.3f} {x + 0.065:.3f} {y - 0.06:.3f}"
        f"Q{x + 0.16:.3f} {y - 0.065:.3f} {x + 0.16:.3f} {y:.3f}Z"
    )
    return Shape(path(puff), fill="#ffffff")
