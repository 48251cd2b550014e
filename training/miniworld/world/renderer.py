"""Plans to pixels: the picture, exact masks, boxes and keypoints."""

import io
from dataclasses import dataclass

import numpy as np
import resvg_py
from PIL import Image

from .backdrop import paint_backdrop, veil
from .creature import draw_creature
from .pose import KEYPOINTS, Pose, solve
from .scene import ScenePlan
from .svg import Palette, Shape, document, ellipse, paint, path

_MASK_COLOURS = ("#ff0000", "#00ff00", "#0000ff")


@dataclass(frozen=True, eq=False)
class Render:
    """A drawn plan.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        masks: (S, size, size) bool, the visible pixels of each creature.
        boxes: (S, 4) float32 x0 y0 x1 y1, the mask's bounds as fractions of the picture.
        keypoints: (S, 17, 3) float32 x, y as fractions and visibility 0 or 1, in AP-10K order.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray


def render(plan: ScenePlan, size: int = 128) -> Render:
    """Draws a plan.

    Args:
        plan: what to draw.
        size: pixels along each side; drawn natively at any size.
    Returns:
        A Render.
    """
    picture, silhouettes = svg(plan)
    image = _pixels(picture, size)
    ids = _pixels(silhouettes, size)
    masks = np.stack([ids[..., index] > 127 for index in range(len(plan.identities))])
    boxes = np.stack([mask_box(mask) for mask in masks])
    poses = plan.staging.poses
    keypoints = np.stack([_keypoints(pose, mask) for pose, mask in zip(poses, masks)])
    return Render(image, masks, boxes, keypoints)


def svg(plan: ScenePlan) -> tuple[str, str]:
    """The picture and its flat silhouettes (creature i in the i-th of red, green, blue) as SVG texts."""
    palette = Palette(light=plan.backdrop.side)
    layers = [
        draw_creature(identity, pose, palette, str(index))
        for index, (identity, pose) in enumerate(zip(plan.identities, plan.staging.poses))
    ]
    shapes = paint_backdrop(plan.backdrop, palette)
    shapes += [_shadow(pose, palette) for pose in plan.staging.poses]
    silhouettes = []
    for index, layer in plan.staging.painting_order():
        shapes += layers[index][layer]
        silhouettes += [shape.silhouette(_MASK_COLOURS[index]) for shape in layers[index][layer]]
    for prop in plan.staging.props:
        shapes += _prop(*prop)
    return document(palette, paint(shapes) + veil(plan.backdrop.light)), document(
        Palette(), "".join(silhouettes), crisp=True
    )


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Bounds of a mask: (4,) float32 x0 y0 x1 y1 as fractions; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    height, width = mask.shape
    return np.array(
        (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height), np.float32
    )


def _pixels(text: str, size: int) -> np.ndarray:
    png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _keypoints(pose: Pose, mask: np.ndarray) -> np.ndarray:
    """Joints with visibility: inside the picture, on the creature's own visible pixels, not on its far side."""
    points = solve(pose)
    size = mask.shape[0]
    visible = np.zeros(len(KEYPOINTS))
    for index, (x, y) in enumerate(points):
        if 0 <= x < 1 and 0 <= y < 1:
            visible[index] = mask[int(y * size), int(x * size)]
    if abs(pose.turn) > 0.8:
        visible[0 if pose.turn > 0 else 1] = 0
    if abs(pose.turn) < 0.3:
        visible[4] = 0
    return np.concatenate([points, visible[:, None]], axis=1).astype(np.float32)


def _shadow(pose: Pose, palette: Palette) -> Shape:
    """A soft pool of shade on the ground below a creature, wider and paler the higher it is."""
    points = solve(pose)
    low = max(float(points[:, 1].max()), 0.80) + 0.03 * pose.size
    low = min(max(low, 0.86), 0.965)
    span = max((points[[7, 10, 13, 16], 0].max() - points[[7, 10, 13, 16], 0].min()) / 2, 0.2 * pose.size)
    fill = palette.glow("shade", "#1b1433", 0.42)
    return Shape(ellipse(float(points[[13, 16, 4], 0].mean()), low, span * 1.15 + 0.03, 0.036), fill=fill)


def _prop(kind: str, x: float, y: float, size: float) -> list[Shape]:
    if kind == "apple":
        leaf = path(f"M{x:.3f} {y - size:.3f}q{size * 0.1:.3f} {-size * 0.7:.3f} {size * 0.8:.3f} {-size * 0.6:.3f}")
        return [
            Shape(leaf, stroke="#4f8f3a", width=0.014),
            Shape(ellipse(x, y, size, size), fill="#e2403f", stroke="#8c1f28", width=0.008),
            Shape(ellipse(x - size * 0.35, y - size * 0.35, size * 0.25, size * 0.25), fill="#ffffff", opacity=0.7),
        ]
    heart = (
        f"M{x:.3f} {y + size:.3f}C{x - 1.7 * size:.3f} {y - 0.1 * size:.3f} "
        f"{x - 0.8 * size:.3f} {y - 1.4 * size:.3f} {x:.3f} {y - 0.35 * size:.3f}"
        f"C{x + 0.8 * size:.3f} {y - 1.4 * size:.3f} {x + 1.7 * size:.3f} {y - 0.1 * size:.3f} {x:.3f} {y + size:.3f}Z"
    )
    return [Shape(path(heart), fill="#ff5470", stroke="#b3234a", width=0.01)]
