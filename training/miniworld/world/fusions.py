"""Plant fused bodies: pictures of two creatures that a relation's classifier must refuse.

Weak samples draw a hug as one lump: two furs on one body, two faces shining through each other, two heads on one
trunk, one creature alone with its arms around nothing, or two heads melted into one smear. Each is planted here from
renders of exact scenes, so that a classifier can be taught to refuse them and its accuracy on them can be stated.
"""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .creature import LAYERS
from .pose import Pose
from .relations import OVERLAPPING
from .renderer import rasterise, render, svg
from .scene import ScenePlan, draw_plan
from .staging import Staging

KINDS = ("chimera", "double exposure", "two heads", "one missing", "melted")
LUMPED = tuple(relation for relation in OVERLAPPING if relation not in ("riding", "leapfrogging", "carrying"))
"""Relations of two upright bodies side by side, which fuse most easily."""


def plant(rng: np.random.Generator, kind: str, size: int = 128) -> np.ndarray:
    """Draw one fused picture, of seen and held-out identities.

    Args:
        rng: owner of the randomness.
        kind: one of KINDS.
        size: pixels along each side.

    Returns:
        (size, size, 3) uint8.
    """
    relation = "hugging" if rng.random() < 0.5 else str(rng.choice(LUMPED))
    plan = draw_plan(rng, relation=relation, held_out=None)
    if kind == "chimera":
        return _chimera(rng, plan, size)
    if kind == "double exposure":
        return _double_exposure(rng, plan, size)
    if kind == "two heads":
        return _two_heads(rng, plan, size)
    if kind == "melted":
        return _melted(rng, plan, size)
    lonely = int(rng.integers(2))
    return render(_only(plan, lonely), size).image


def _only(plan: ScenePlan, index: int, pose: Pose | None = None) -> ScenePlan:
    """Keep one of a scene's creatures, in its own pose or another."""
    staging = Staging((pose or plan.staging.poses[index],))
    return replace(plan, cast=(plan.cast[index],), staging=staging)


def _moved(pose: Pose, dx: float, dy: float = 0.0) -> Pose:
    """Shift a pose, with everything that it touches."""

    def shift(point: tuple[float, float]) -> tuple[float, float]:
        return (point[0] + dx, point[1] + dy)

    return replace(
        pose,
        hip=shift(pose.hip),
        hands=tuple(shift(hand) for hand in pose.hands),
        feet=tuple(shift(foot) for foot in pose.feet),
    )


def _meeting(rng: np.random.Generator, plan: ScenePlan, distance: tuple[float, float]) -> tuple[Pose, Pose]:
    """Move both poses together until their heads are `distance` (least, most) head widths apart."""
    first, second = plan.staging.poses
    apart = float(rng.uniform(*distance)) * 0.6 * (first.size + second.size) / 2
    dx, dy = second.head[0] - first.head[0], second.head[1] - first.head[1]
    way = 1.0 if dx >= 0 else -1.0
    pull, drop = (dx - way * apart) / 2, 0.45 * dy
    return _moved(first, pull, drop), _moved(second, -pull, -drop)


def _chimera(rng: np.random.Generator, plan: ScenePlan, size: int) -> np.ndarray:
    """Draw one body, left half of one creature and right half of the other, with a soft seam."""
    first, second = _meeting(rng, plan, (0.0, 0.3))
    one, two = (render(_only(plan, i, pose), size).image.astype(float) for i, pose in enumerate((first, second)))
    middle = (first.head[0] + second.head[0]) / 2 * size
    soft = rng.uniform(0.02, 0.10) * size
    share = 1 / (1 + np.exp(np.clip((np.arange(size) - middle) / soft, -30, 30)))
    if first.head[0] > second.head[0]:
        share = 1 - share
    return np.round(share[:, None] * one + (1 - share[:, None]) * two).astype(np.uint8)


def _double_exposure(rng: np.random.Generator, plan: ScenePlan, size: int) -> np.ndarray:
    """Draw two heads that shine through each other."""
    first, second = _meeting(rng, plan, (0.15, 0.6))
    near = replace(plan, staging=Staging((first, second)))
    order = tuple((index, layer) for index in (1, 0) for layer in LAYERS)
    far = replace(plan, staging=Staging((first, second), order))
    share = rng.uniform(0.35, 0.65)
    mixed = share * render(near, size).image.astype(float) + (1 - share) * render(far, size).image.astype(float)
    return np.round(mixed).astype(np.uint8)


def _melted(rng: np.random.Generator, plan: ScenePlan, size: int) -> np.ndarray:
    """Blur two heads into each other: faces and the outline between them are smeared away."""
    first, second = _meeting(rng, plan, (0.3, 0.75))
    image = Image.fromarray(render(replace(plan, staging=replace(plan.staging, poses=(first, second))), size).image)
    smeared = np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.035, 0.06)) * size)), float)
    heads = Image.new("L", (size, size), 0)
    brush = ImageDraw.Draw(heads)
    for pose in (first, second):
        (x, y), radius = pose.head, 0.27 * pose.size
        brush.ellipse([size * edge for edge in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    share = np.asarray(heads.filter(ImageFilter.GaussianBlur(0.02 * size)), float)[..., None] / 255
    return np.round(share * smeared + (1 - share) * np.asarray(image, float)).astype(np.uint8)


def _two_heads(rng: np.random.Generator, plan: ScenePlan, size: int) -> np.ndarray:
    """Draw one trunk with its limbs under both heads."""
    first, second = _meeting(rng, plan, (0.35, 0.75))
    owner = int(rng.integers(2))
    order = (*((owner, layer) for layer in LAYERS[:-1]), (1 - owner, "head"), (owner, "head"))
    planted = replace(plan, staging=Staging((first, second), order, plan.staging.props))
    return rasterise(svg(planted)[0], size)
