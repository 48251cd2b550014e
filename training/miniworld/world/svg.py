"""Vector shapes as SVG text, drawn twice: once in colour, once as flat silhouettes for exact masks.

SVG, because it needs no drawing library to write and any viewer shows it; resvg (a Rust renderer whose wheels link to
nothing but libc) turns it into pixels with anti-aliasing, gradients and clips, and without anti-aliasing for masks.
"""

from dataclasses import dataclass, field
from itertools import groupby

from .colour import Oklch, css, shade
from .pose import Point


@dataclass(frozen=True)
class Shape:
    """One SVG element.

    Attributes:
        geometry: the element without its paint, e.g. `ellipse cx="0" cy="0" rx="1" ry="1"`.
        fill, stroke: CSS paints or "none".
        width: stroke width in the shape's own units.
        transform: SVG transform, "" for scene units.
        clip: name of a clip path, "" for none.
        opacity: 0 to 1, of the paint (not of a group: resvg draws groups in extra layers, which is slow).
        solid: whether it adds to the creature's silhouette (a spot on the belly does not).
    """

    geometry: str
    fill: str = "none"
    stroke: str = "none"
    width: float = 0.0
    transform: str = ""
    clip: str = ""
    opacity: float = 1.0
    solid: bool = False

    def svg(self) -> str:
        text = f'<{self.geometry} fill="{self.fill}"' + self._line(self.stroke)
        if self.transform:
            text += f' transform="{self.transform}"'
        if self.opacity < 1:
            text += f' fill-opacity="{self.opacity:.3f}" stroke-opacity="{self.opacity:.3f}"'
        return text + "/>"

    def _line(self, colour: str) -> str:
        if self.stroke == "none":
            return ""
        ends = 'stroke-linecap="round" stroke-linejoin="round"'
        return f' stroke="{colour}" stroke-width="{self.width:.4f}" {ends}'

    def silhouette(self, colour: str) -> str:
        """Write the outline in one flat colour, stroke included; "" for what lies inside other shapes."""
        if not self.solid:
            return ""
        text = f'<{self.geometry} fill="{colour if self.fill != "none" else "none"}"' + self._line(colour)
        return text + (f' transform="{self.transform}"/>' if self.transform else "/>")


@dataclass
class Palette:
    """Gradients and clip paths that shapes refer to by name; one per picture.

    Attributes:
        light: -1 (lit from the left) or 1 (from the right).
    """

    light: float = -1.0
    definitions: dict[str, str] = field(default_factory=dict)

    def soft(self, colour: Oklch, depth: float = 1.0) -> str:
        """Define a plush-like radial shading of `colour`: bright towards the light, deeper at the far rim."""
        name = f"s{css(colour)[1:]}{'l' if self.light < 0 else 'r'}{round(10 * depth)}"
        stops = ((0.0, shade(colour, 0.075 * depth, 0.9)), (0.5, colour), (1.0, shade(colour, -0.115 * depth, 1.06)))
        body = "".join(f'<stop offset="{at}" stop-color="{css(stop)}"/>' for at, stop in stops)
        centre = 0.5 + 0.17 * self.light
        self.definitions[name] = (
            f'<radialGradient id="{name}" cx="{centre:.2f}" cy="0.27" r="0.8">{body}</radialGradient>'
        )
        return f"url(#{name})"

    def vertical(self, name: str, top: str, bottom: str) -> str:
        """Define a vertical two-colour gradient of the element's box."""
        self.definitions[name] = (
            f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}"/>'
            f'<stop offset="1" stop-color="{bottom}"/></linearGradient>'
        )
        return f"url(#{name})"

    def glow(self, name: str, inner: str, alpha: float) -> str:
        """Define a radial fade from `inner` at `alpha` to nothing: soft shadows and halos without a blur filter."""
        self.definitions[name] = (
            f'<radialGradient id="{name}"><stop offset="0" stop-color="{inner}" stop-opacity="{alpha:.3f}"/>'
            f'<stop offset="0.55" stop-color="{inner}" stop-opacity="{0.6 * alpha:.3f}"/>'
            f'<stop offset="1" stop-color="{inner}" stop-opacity="0"/></radialGradient>'
        )
        return f"url(#{name})"

    def clip(self, name: str, shape: str, transform: str) -> str:
        """Define a clip path; return its name."""
        self.definitions[name] = f'<clipPath id="{name}"><{shape} transform="{transform}"/></clipPath>'
        return name


def ellipse(x: float, y: float, rx: float, ry: float) -> str:
    return f'ellipse cx="{x:.4f}" cy="{y:.4f}" rx="{max(rx, 1e-4):.4f}" ry="{max(ry, 1e-4):.4f}"'


def path(data: str) -> str:
    return f'path d="{data}"'


def polygon(*points: Point) -> str:
    return path("M" + "L".join(f"{x:.4f} {y:.4f}" for x, y in points) + "Z")


def limb(start: Point, joint: Point, end: Point) -> str:
    """Draw a soft bend from start to end that passes through the joint."""
    bend = (2 * joint[0] - (start[0] + end[0]) / 2, 2 * joint[1] - (start[1] + end[1]) / 2)
    return path(f"M{start[0]:.4f} {start[1]:.4f}Q{bend[0]:.4f} {bend[1]:.4f} {end[0]:.4f} {end[1]:.4f}")


def frame(origin: Point, size: float, angle: float) -> str:
    """Write the SVG transform of a frame at `origin`, rotated by `angle` radians and scaled by `size`."""
    return f"translate({origin[0]:.4f} {origin[1]:.4f}) rotate({angle * 57.29578:.2f}) scale({size:.4f})"


def paint(shapes: list[Shape]) -> str:
    """Write the shapes as SVG text, neighbours under one clip path in one group."""
    return "".join(
        f'<g clip-path="url(#{clip})">{text}</g>' if clip else text
        for clip, text in (
            (clip, "".join(shape.svg() for shape in run)) for clip, run in groupby(shapes, key=lambda s: s.clip)
        )
    )


def document(palette: Palette, body: str, crisp: bool = False) -> str:
    """Write the whole picture: unit square view box; `crisp` switches anti-aliasing off."""
    edges = ' shape-rendering="crispEdges"' if crisp else ""
    definitions = "".join(palette.definitions.values())
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"{edges}><defs>{definitions}</defs>{body}</svg>'
