"""Pictures for people: boxes over a canvas, dense features as colours; pictures read from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from ...core.scene import Scene, Subject
from .fonts import font_for

# Okabe-Ito: distinct with any colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#999999")
PAPER, GRID = "#20242b", "#2c313a"
PHOTOGRAPH_ALPHA = 180


def draw_layout(scene: Scene, width: int, height: int) -> Tensor:
    """Draw the boxes of a scene with each subject's photograph and name inside: (1, H, W, 3) in [0, 1]."""
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    for step in range(1, 8):
        pen.line([(width * step // 8, 0), (width * step // 8, height)], fill=GRID)
        pen.line([(0, height * step // 8), (width, height * step // 8)], fill=GRID)
    unit = max(1, round(min(width, height) / 256))
    for subject in scene.subjects:
        _draw_photograph(canvas, subject)
    for index, subject in enumerate(scene.subjects):
        left, top, right, bottom = _edges(subject, (width, height))
        pen.rectangle(
            [left, top, max(left, right - 1), max(top, bottom - 1)],
            outline=COLOURS[index % len(COLOURS)],
            width=2 * unit,
        )
    _draw_labels(pen, scene, (width, height), unit)
    return from_pil(canvas)[None]


def _edges(subject: Subject, size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    box = subject.box
    return round(box.x0 * width), round(box.y0 * height), round(box.x1 * width), round(box.y1 * height)


def _draw_photograph(canvas: Image.Image, subject: Subject) -> None:
    """Paste the first photograph, fitted into the box, half transparent."""
    left, top, right, bottom = _edges(subject, canvas.size)
    photograph = to_pil(subject.photographs[0])
    alpha = Image.new("L", photograph.size, 255) if subject.mask is None else to_pil(subject.mask[:1]).convert("L")
    scale = min((right - left) / photograph.width, (bottom - top) / photograph.height)
    size = max(1, int(photograph.width * scale)), max(1, int(photograph.height * scale))
    corner = (left + right - size[0]) // 2, (top + bottom - size[1]) // 2
    alpha = alpha.resize(size).point([level * PHOTOGRAPH_ALPHA // 255 for level in range(256)])
    canvas.paste(photograph.resize(size, Image.Resampling.LANCZOS), corner, alpha)


def _draw_labels(pen: ImageDraw.ImageDraw, scene: Scene, size: tuple[int, int], unit: int) -> None:
    """Draw names over everything, at the upper left of their boxes, moved down where another name stands already."""
    label_boxes: list[tuple[int, int, int, int]] = []
    for index, subject in enumerate(scene.subjects):
        left, top, _, _ = _edges(subject, size)
        label = f"{index + 1} {subject.name}" + ("" if subject.weight == 1 else f"  x{subject.weight:g}")
        font = font_for(label, max(9, 11 * unit))
        x1, y1 = (round(edge) for edge in pen.textbbox((0, 0), label, font=font)[2:])
        wide, high = x1 + 8 * unit, y1 + 6 * unit
        while any(left < r and left + wide > x and top < b and top + high > y for x, y, r, b in label_boxes):
            top += high
        label_boxes.append((left, top, left + wide, top + high))
        pen.rectangle(label_boxes[-1], fill=COLOURS[index % len(COLOURS)])
        pen.text((left + 4 * unit, top + 3 * unit), label, fill="black", font=font)


def feature_colours(dense: Tensor) -> Tensor:
    """Map dense features to colours: their three main directions over all pictures as red, green, blue.

    DreamRelation (arXiv:2410.23280), figure 20.

    Args:
        dense: (V, W, h, w).

    Returns:
        (V, 3, h, w) in [0, 1].
    """
    flat = rearrange(dense.float(), "v c h w -> (v h w) c")
    flat = flat - flat.mean(dim=0)
    rank = min(3, *flat.shape)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    main = directions[:rank]
    main = main * main.gather(1, main.abs().argmax(dim=1, keepdim=True)).sign()  # same signs on every machine
    colours = F.pad(flat @ main.T, (0, 3 - rank))
    low, high = colours.quantile(0.01, dim=0), colours.quantile(0.99, dim=0)
    colours = ((colours - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)
    return rearrange(colours, "(v h w) c -> v c h w", v=dense.shape[0], h=dense.shape[2])


def side_by_side(photographs: Tensor, colours: Tensor) -> Tensor:
    """(V, 3, s, s) photographs and (V, 3, h, w) colours side by side: (V, s, 2s, 3)."""
    side = photographs.shape[-1]
    colours = F.interpolate(colours, size=(side, side), mode="nearest")
    return rearrange(torch.cat((photographs, colours), dim=-1), "v c h w -> v h w c")


def read_picture(path: Path) -> Tensor:
    """Read a file to an IMAGE (1, H, W, 3) in [0, 1]."""
    with Image.open(path) as picture:
        return from_pil(picture)[None]


def to_pil(pixels: Tensor) -> Image.Image:
    """(3 or 1, H, W) in [0, 1] to PIL."""
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(array.transpose(1, 2, 0)) if array.shape[0] == 3 else Image.fromarray(array[0])


def from_pil(picture: Image.Image) -> Tensor:
    """PIL to (H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.asarray(picture.convert("RGB")).astype(np.float32) / 255)
