"""Triplets drawn by code, in the authors' layout: ellipses with skeletons inside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

PROMPTS = (
    ("A fox hugs a bear.", ["fox", "bear"], ["hugs"]),
    ("A cat is hugging a dog.", ["cat", "dog"], ["hugging"]),
    ("A mouse and a frog hug.", ["mouse", "frog"], ["hug"]),
)


def draw_picture(rng: np.random.Generator, size: tuple[int, int], boxes: list[tuple[float, ...]]) -> Image.Image:
    """Coloured ellipses on a gradient."""
    width, height = size
    ramp = np.linspace(40, 200, width, dtype=np.uint8)
    picture = Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy())
    for box in boxes:
        colour = tuple(int(value) for value in rng.integers(60, 255, 3))
        ImageDraw.Draw(picture).ellipse([box[0] * width, box[1] * height, box[2] * width, box[3] * height], fill=colour)
    return picture


def _skeleton(rng: np.random.Generator, box: tuple[float, ...]) -> np.ndarray:
    low, high = np.array(box[:2]), np.array(box[2:])
    return (low + (high - low) * (0.25 + 0.5 * rng.random((17, 2)))).astype(np.float32)


BOXES = ((0.1, 0.2, 0.5, 0.9), (0.5, 0.3, 0.95, 0.9))


def write_authors(
    folder: Path, count: int = 3, size: tuple[int, int] = (96, 96), swapped: tuple[int, ...] = (1,)
) -> None:
    """The authors' layout; the skeletons of the samples in ``swapped`` are in the wrong order."""
    rng = np.random.default_rng(0)
    prompts = {}
    for i in range(count):
        prompt, names, predicate = PROMPTS[i % len(PROMPTS)]
        prompts[str(i)] = {"prompt": prompt, "entities": names, "predicate": predicate}
        video, masks = folder / "videos" / str(i), folder / "masks" / str(i)
        video.mkdir(parents=True)
        masks.mkdir(parents=True)
        draw_picture(rng, size, list(BOXES)).save(video / "motion.png")
        skeletons = torch.from_numpy(np.stack([_skeleton(rng, box) for box in BOXES]))
        torch.save(skeletons.flip(0) if i in swapped else skeletons, video / "motion_keyposes.pth")
        for subject, ordinal in enumerate(("one", "two")):
            mask = Image.new("L", size)
            x0, y0, x1, y1 = BOXES[subject]
            ImageDraw.Draw(mask).rectangle((x0 * size[0], y0 * size[1], x1 * size[0] - 1, y1 * size[1] - 1), fill=255)
            mask.save(masks / f"motion{subject}.png")
            whole = (0.2, 0.2, 0.8, 0.8)
            draw_picture(rng, size, [whole]).save(video / f"concept{subject}.png")
            torch.save(torch.from_numpy(_skeleton(rng, whole)[None]), video / f"concept_keyposes_{ordinal}.pth")
    (folder / "prompts.json").write_text(json.dumps(prompts))
