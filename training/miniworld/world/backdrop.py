"""Where a scene takes place and how it is lit: simple, soft and told apart at a glance."""

from dataclasses import dataclass

import numpy as np

from .svg import Palette, Shape, ellipse, path, polygon

HORIZON = 0.66
PLACES = ("meadow", "beach", "snow", "forest", "room", "desert", "night", "city")
LIGHTS = ("day", "sunset", "moonlight")

# sky top, sky bottom, ground top, ground bottom
_COLOURS = {
    "meadow": ("#a9dcf7", "#e4f5fd", "#a5d977", "#72b95a"),
    "beach": ("#8fd3f4", "#d9f2fb", "#f6e3b4", "#e6c98a"),
    "snow": ("#c3d9ee", "#eef5fb", "#fbfdff", "#d5e4f2"),
    "forest": ("#bfe3cf", "#e6f4e2", "#84b26b", "#578a50"),
    "room": ("#f7dcc8", "#fbeadd", "#c99f7b", "#a87c5c"),
    "desert": ("#fbd5a0", "#fdeccb", "#eab676", "#d0934f"),
    "night": ("#2b3264", "#565c99", "#4c5f80", "#374668"),
    "city": ("#b8c9e6", "#e5ecf7", "#b9bcc6", "#959aa8"),
}
_VEILS = {"day": "", "sunset": "#ffe0c0", "moonlight": "#c0caf5"}


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
    """A place and light, uniform except that two scenes in three are in plain daylight."""
    return Backdrop(
        place=str(rng.choice(PLACES)),
        light=str(rng.choice(LIGHTS, p=(0.66, 0.17, 0.17))),
        side=float(rng.choice((-1.0, 1.0))),
        seed=int(rng.integers(2**31)),
    )


def paint_backdrop(backdrop: Backdrop, palette: Palette) -> list[Shape]:
    """Sky, props and ground, back to front, in scene units."""
    rng = np.random.default_rng(backdrop.seed)
    top, low, ground, deep = _COLOURS[backdrop.place]
    sky = Shape('rect x="0" y="0" width="1" height="1"', fill=palette.vertical("sky", top, low))
    line = HORIZON + rng.uniform(-0.02, 0.02)
    earth = path(f"M0 {line:.3f}Q0.5 {line - _bulge(backdrop.place):.3f} 1 {line:.3f}L1 1L0 1Z")
    floor = Shape(earth, fill=palette.vertical("ground", ground, deep))
    props = _PROPS[backdrop.place](rng.uniform(0.12, 0.88), rng, line, palette)
    return [sky, *props, floor, *_details(backdrop.place, rng, line)]


def veil(light: str) -> str:
    """Coloured light over everything, multiplied as light is; "" by day."""
    colour = _VEILS[light]
    return f'<rect width="1" height="1" fill="{colour}" style="mix-blend-mode:multiply"/>' if colour else ""


def _bulge(place: str) -> float:
    return {"meadow": 0.05, "desert": 0.06, "snow": 0.05}.get(place, 0.0)


def _meadow(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """Clouds and a far hill."""
    return [
        _cloud(x, 0.14),
        _cloud((x + 0.5) % 1, 0.24),
        Shape(ellipse(x - 0.2, line + 0.02, 0.4, 0.12), fill="#8ccb74"),
    ]


def _beach(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """The sun over the sea."""
    sea = Shape(
        f'rect x="0" y="{line - 0.13:.3f}" width="1" height="0.2"',
        fill=palette.vertical("sea", "#5fb6dd", "#93d6e8"),
    )
    return [Shape(ellipse(x, 0.15, 0.075, 0.075), fill="#ffe27a"), sea]


def _snow(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """Three peaks."""
    peaks = [
        polygon((c - 0.32, line + 0.05), (c, line - h), (c + 0.32, line + 0.05))
        for c, h in ((x, 0.36), (x - 0.45, 0.26), (x + 0.45, 0.24))
    ]
    return [Shape(peak, fill=colour) for peak, colour in zip(peaks, ("#a9c0dc", "#b9cde4", "#b9cde4"))]


def _forest(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """Six trees."""
    trees = []
    for c in np.linspace(0.04, 0.96, 6) + rng.uniform(-0.05, 0.05, 6):
        height = rng.uniform(0.4, 0.55)
        trees += [Shape(polygon((c - 0.11, line + 0.03), (c, line - height), (c + 0.11, line + 0.03)), fill="#6ea67a")]
    return trees


def _room(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """A window and a skirting board."""
    left = x * 0.55 + 0.05
    return [
        Shape(
            f'rect x="{left:.3f}" y="0.08" width="0.28" height="0.27" rx="0.02"',
            fill="#cfeaf7",
            stroke="#fffaf3",
            width=0.028,
        ),
        Shape(f'rect x="0" y="{line - 0.035:.3f}" width="1" height="0.05"', fill="#fff6ea"),
    ]


def _desert(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """The sun and a cactus."""
    cactus = path(
        f"M{x:.3f} {line + 0.03:.3f}L{x:.3f} {line - 0.22:.3f}"
        f"M{x:.3f} {line - 0.07:.3f}L{x + 0.07:.3f} {line - 0.07:.3f}"
        f"L{x + 0.07:.3f} {line - 0.15:.3f}"
    )
    return [
        Shape(ellipse((x + 0.5) % 1, 0.16, 0.085, 0.085), fill="#fff1c4"),
        Shape(cactus, stroke="#7fae6c", width=0.05),
    ]


def _night(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """Stars and the moon."""
    stars = [
        Shape(ellipse(sx, sy, 0.006, 0.006), fill="#fff7d6")
        for sx, sy in rng.uniform((0.02, 0.02), (0.98, 0.5), (14, 2))
    ]
    return [
        *stars,
        Shape(ellipse(x, 0.15, 0.075, 0.075), fill="#fdf3c3"),
        Shape(ellipse(x + 0.035, 0.135, 0.062, 0.062), fill="#333a70"),
    ]


def _city(x: float, rng: np.random.Generator, line: float, palette: Palette) -> list[Shape]:
    """Houses."""
    houses = []
    for at in np.arange(-0.05, 1.0, 0.19):
        height = rng.uniform(0.25, 0.5)
        houses.append(
            Shape(
                f'rect x="{at:.3f}" y="{line - height:.3f}" width="0.17" height="{height + 0.02:.3f}"',
                fill=str(rng.choice(("#a3b2d2", "#b3a6cc", "#c4b3bd"))),
            )
        )
    return houses


_PROPS = {
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
        f"M{x - 0.13:.3f} {y:.3f}Q{x - 0.13:.3f} {y - 0.06:.3f} {x - 0.05:.3f} {y - 0.05:.3f}"
        f"Q{x:.3f} {y - 0.11:.3f} {x + 0.055:.3f} {y - 0.05:.3f}"
        f"Q{x + 0.13:.3f} {y - 0.055:.3f} {x + 0.13:.3f} {y:.3f}Z"
    )
    return Shape(path(puff), fill="#ffffff", opacity=0.9)


def _details(place: str, rng: np.random.Generator, line: float) -> list[Shape]:
    if place == "meadow":
        return [
            Shape(ellipse(x, y, 0.011, 0.011), fill=str(rng.choice(("#ffffff", "#ffe27a", "#ff9fb5"))))
            for x, y in rng.uniform((0.03, line + 0.05), (0.97, 0.97), (9, 2))
        ]
    if place == "room":
        rug = ellipse(0.5, (line + 1) / 2 + 0.03, 0.44, 0.1)
        return [Shape(rug, fill=str(rng.choice(("#d97a6c", "#7ba7c7", "#9dbb7e"))), opacity=0.75)]
    if place == "city":
        return [
            Shape(f'rect x="{x:.2f}" y="0.93" width="0.13" height="0.022"', fill="#eef0f5")
            for x in (0.03, 0.29, 0.55, 0.81)
        ]
    return []
