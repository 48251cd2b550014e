"""Render plans: the picture, exact masks, boxes, keypoints, and how much of each emblem is visible."""

import io
from dataclasses import dataclass

import numpy as np
import resvg_py
from PIL import Image

from .backdrop import paint_backdrop
from .creature import draw_creature
from .emblems import Mark, area
from .pose import KEYPOINTS, Pose, solve
from .props import draw_prop
from .scene import ScenePlan
from .svg import Palette, Shape, document, ellipse, paint

# creature i is drawn in the i-th channel; its emblem at half of that, so that one picture holds both
_BODY = ("#ff0000", "#00ff00", "#0000ff")
_EMBLEM = ("#800000", "#008000", "#000080")


@dataclass(frozen=True, eq=False)
class Render:
    """A drawn plan.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        masks: (S, size, size) bool, the visible pixels of each creature.
        boxes: (S, 4) float32 x0 y0 x1 y1, the mask's bounds as fractions of the picture.
        keypoints: (S, 17, 3) float32 x, y as fractions and visibility 0 or 1, in AP-10K order.
        emblem_boxes: (S, 4) float32, bounds of each emblem's visible pixels; zeros where none is visible.
        emblem_visible: (S,) float32, visible share of each emblem's area, 0 to 1.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    emblem_boxes: np.ndarray
    emblem_visible: np.ndarray


def render(plan: ScenePlan, size: int = 128) -> Render:
    """Draw a plan.

    Args:
        plan: what to draw.
        size: pixels along each side; drawn natively at any size.

    Returns:
        A Render.
    """
    picture, silhouettes = svg(plan)
    image, ids = rasterise(picture, size), rasterise(silhouettes, size)
    count, poses = len(plan.cast), plan.staging.poses
    masks = np.stack([ids[..., index] > 0 for index in range(count)])
    emblems = [(ids[..., index] > 0) & (ids[..., index] < 200) for index in range(count)]
    whole = [area(traits, pose) * size**2 for traits, pose in zip(plan.cast, poses)]
    return Render(
        image,
        masks,
        np.stack([mask_box(mask) for mask in masks]),
        np.stack([_keypoints(pose, mask) for pose, mask in zip(poses, masks)]),
        np.stack([mask_box(emblem) for emblem in emblems]),
        np.array([min(emblem.sum() / pixels, 1.0) for emblem, pixels in zip(emblems, whole)], np.float32),
    )


def svg(plan: ScenePlan) -> tuple[str, str]:
    """Write the picture and its flat silhouettes (creature i in the i-th of red, green, blue) as SVG texts."""
    palette = Palette(light=plan.backdrop.side)
    poses = plan.staging.poses
    layers = [
        draw_creature(traits, pose, palette, str(index)) for index, (traits, pose) in enumerate(zip(plan.cast, poses))
    ]
    behind = paint(paint_backdrop(plan.backdrop, palette))
    shapes = [_shadow(pose, palette) for pose in poses]
    silhouettes = []
    for index, layer in plan.staging.painting_order():
        shapes += layers[index][layer]
        for shape in layers[index][layer]:
            silhouettes.append(shape.silhouette((_EMBLEM if isinstance(shape, Mark) else _BODY)[index]))
    for prop in plan.staging.props:
        shapes += draw_prop(*prop)
    return document(palette, behind + paint(shapes)), document(Palette(), "".join(silhouettes), crisp=True)


def mask_box(mask: np.ndarray) -> np.ndarray:
    """Return the bounds of a mask: (4,) float32 x0 y0 x1 y1 as fractions; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    height, width = mask.shape
    return np.array(
        (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height), np.float32
    )


def rasterise(text: str, size: int) -> np.ndarray:
    """Rasterise SVG text to (size, size, 3) uint8."""
    png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _keypoints(pose: Pose, mask: np.ndarray) -> np.ndarray:
    """Add visibility to the joints: inside the picture, on the creature's own visible pixels, not on its far side."""
    points = solve(pose)
    size = mask.shape[0]
    visible = np.zeros(len(KEYPOINTS))
    for index, (x, y) in enumerate(points):
        if 0 <= x < 1 and 0 <= y < 1:
            visible[index] = mask[int(y * size), int(x * size)]
    if abs(pose.turn) < 0.3:
        visible[4] = 0  # the root of the tail is behind the body
    return np.concatenate([points, visible[:, None]], axis=1).astype(np.float32)


def _shadow(pose: Pose, palette: Palette) -> Shape:
    """Draw a soft pool of shade on the ground below a creature, wider than its stance."""
    points = solve(pose)
    low = min(max(float(points[:, 1].max()) + 0.04 * pose.size, 0.885), 0.965)
    span = max((points[[7, 10, 13, 16], 0].max() - points[[7, 10, 13, 16], 0].min()) / 2, 0.2 * pose.size)
    fill = palette.glow("shade", "#1b1433", 0.38)
    return Shape(ellipse(float(points[[13, 16, 4], 0].mean()), low, span * 1.15 + 0.03, 0.038), fill=fill)
