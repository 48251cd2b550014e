"""Contact sheets of renders, reconstructions and samples, side by side."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...common.sheets import save_picture
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.pictures import to_tensor, to_uint8
from ..world.relations import SEEN
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import draw_plan
from ..world.triplets import evaluation_plans, plans_in_turn
from .generate import copies, generate, generate_images, request_of

COLUMNS, DISPLAY = 6, 192


def tiled(images: list[np.ndarray], columns: int = COLUMNS, side: int = DISPLAY) -> Image.Image:
    """Tile uint8 (H, W, 3) pictures row by row, each `side` pixels wide."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), (255, 255, 255))
    for index, image in enumerate(images):
        tile = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, (index % columns * side, index // columns * side))
    return sheet


def beside(truth: Tensor, pictures: Tensor, columns: int = COLUMNS) -> Image.Image:
    """Put renders in the left half and samples of the same plans in the right, at their own size."""
    side = truth.shape[-1]
    left, right = (tiled(to_uint8(images), columns, side) for images in (truth, pictures))
    sheet = Image.new("RGB", (2 * left.width + side // 8, left.height), (255, 255, 255))
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + side // 8, 0))
    return sheet


def render_sheet(path: Path, seed: int = 0, count: int = 36) -> None:
    """Draw renders as the UNet's training sees them: seen relations and identities."""
    rng = generator(seed, Stream.SHEET, 1)
    save_picture(tiled([render(draw_plan(rng), DISPLAY).image for _ in range(count)]), path)


def sample_sheet(path: Path, world: Miniworld, seed: int = 0, count: int = 36) -> None:
    """Sample identities never seen, over the seen relations in turn; the references are not shown."""
    plans = plans_in_turn(SEEN, count, seed)
    save_picture(tiled(to_uint8(generate_images(world, plans, seed))), path)


def comparison_sheet(path: Path, world: Miniworld, relations: tuple[str, ...], seed: int = 0) -> None:
    """Draw one column per scene: the true render, its two references, the sample. All identities are unseen."""
    plans = [evaluation_plans(relation, 1, seed)[0] for relation in relations]
    requests = [request_of(plan, seed, index) for index, plan in enumerate(plans)]
    truth = [render(plan, DISPLAY).image for plan in plans]
    references = [to_uint8(torch.stack([request.references[i] for request in requests])) for i in (0, 1)]
    samples = to_uint8(torch.cat([generate(world, [request], seed) for request in requests]))
    save_picture(tiled([*truth, *references[0], *references[1], *samples], columns=len(plans)), path)


def reconstruction_sheet(path: Path, world: Miniworld, seed: int = 0) -> None:
    """Draw rows in turn: renders, and the autoencoder's copies of them."""
    rng = generator(seed, Stream.SHEET, 2)
    renders = [render(draw_plan(rng, held_out=True)).image for _ in range(2 * COLUMNS)]
    back = to_uint8(copies(world, to_tensor(renders)))
    save_picture(tiled([*renders[:COLUMNS], *back[:COLUMNS], *renders[COLUMNS:], *back[COLUMNS:]]), path)
