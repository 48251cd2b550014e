"""Show what fails (paper's figure 16): pictures in which the judges see no relation, or the wrong looks.

The ablation counts; its worst pictures of each kind are drawn again from the same relation, scene and noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from ...common.sheets import sample_sheet, to_picture
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.pictures import to_tensor
from ..world.renderer import render
from ..world.scene import ScenePlan
from .generate import BATCH, generate_images, request_of
from .measure import Predictions

SIDE, EACH = 160, 2
MANY_SWAPPED, MANY_WRONG = 2, 6  # of a picture's ten traits


def _at_least(traits: np.ndarray, many: int) -> np.ndarray:
    """Count (B, 2, 5) traits of each picture, 0 where there are fewer than `many`."""
    counts = traits.sum((1, 2))
    return np.where(counts >= many, counts, 0)


KINDS: dict[str, Callable[[Predictions], np.ndarray]] = {  # how badly each picture fails in this way; 0: it does not
    "another relation": lambda predictions: ~predictions.relation & ~predictions.fused,
    "bodies fused": lambda predictions: predictions.fused,
    "the other one's looks": lambda predictions: _at_least(predictions.swapped, MANY_SWAPPED),
    "wrong looks": lambda predictions: _at_least(~predictions.right, MANY_WRONG),
}


@dataclass(frozen=True)
class Failure:
    """One picture that fails.

    Attributes:
        kind: key of KINDS.
        many: pictures that fail in this way.
        index: of the picture among those counted.
    """

    kind: str
    many: int
    index: int


def worst(predictions: Predictions, each: int = EACH) -> list[Failure]:
    """List the worst pictures of each kind, at most `each`, no picture twice."""
    failures: list[Failure] = []
    for kind, badness in KINDS.items():
        scores = badness(predictions).astype(int)
        free = scores.copy()
        free[[failure.index for failure in failures]] = 0
        order = np.argsort(-free, kind="stable")[: min(each, int((free > 0).sum()))]
        failures += [Failure(kind, int((scores > 0).sum()), index) for index in order.tolist()]
    return failures


def draw_again(world: Miniworld, plans: list[ScenePlan], seed: int, index: int) -> Tensor:
    """Draw one of the pictures that `generate_images` draws of plans and seed: (3, 128, 128) in [0, 1]."""
    start = index // BATCH * BATCH
    return generate_images(world, plans[: start + BATCH], seed, first=start)[index - start]


def failure_row(plan: ScenePlan, picture: Tensor, seed: int, index: int) -> list[Image.Image]:
    """Return the two references of a scene, the picture that failed, and how the renderer draws it."""
    references = request_of(plan, seed, index).references
    truth = to_tensor([render(plan).image])[0]
    return [to_picture(pixels, SIDE) for pixels in (references[0], references[1], picture, truth)]


def failure_sheet(rows: list[list[Image.Image]], captions: list[str]) -> Image.Image:
    """Draw one row per failure, see `failure_row`, with a caption below each."""
    titles = ("first reference", "second reference", "drawn", "the renderer's")
    return sample_sheet(dict(zip(titles, zip(*rows, strict=True), strict=True)), captions)
