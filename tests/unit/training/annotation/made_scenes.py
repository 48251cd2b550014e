"""Annotation without any network: blobs on grey, and models that read their colours, so that every case can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from training.annotation.backends import Backends, Part
from training.common.boxes import mask_box
from training.common.vision import Detection
from training.data.skeletons import AP10K

COLOURS = {"wolf": (200, 40, 40), "leopard": (40, 60, 200), "cub": (40, 160, 60)}
SIZE = 160
# a creature: a body and four limbs, in box units; poses move the limbs
STANDING = ((0.2, 0.9), (0.4, 0.95), (0.6, 0.95), (0.8, 0.9))
WAVING = ((0.05, 0.1), (0.35, 0.95), (0.95, 0.2), (0.7, 0.9))
LYING = ((0.1, 0.5), (0.15, 0.8), (0.9, 0.55), (0.95, 0.75))


def draw(blobs: Sequence[tuple[str, tuple[float, ...], Sequence[tuple[float, float]]]], noise: int = 0) -> Image.Image:
    """Creatures by (name, box in fractions, limbs); later ones are in front."""
    image = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    pen = ImageDraw.Draw(image)
    for name, (x0, y0, x1, y1), limbs in blobs:
        w, h = (x1 - x0) * SIZE, (y1 - y0) * SIZE
        at = [(x0 * SIZE + x * w, y0 * SIZE + y * h) for x, y in limbs]
        middle = (x0 * SIZE + w / 2, y0 * SIZE + h / 2)
        for point in at:
            pen.line((*middle, *point), fill=COLOURS[name], width=7)
        pen.ellipse((middle[0] - w / 4, middle[1] - h / 4, middle[0] + w / 4, middle[1] + h / 4), fill=COLOURS[name])
    if noise:
        rng = np.random.default_rng(noise)
        image = Image.fromarray(
            (np.asarray(image) + rng.integers(-3, 4, (SIZE, SIZE, 3))).clip(0, 255).astype(np.uint8)
        )
    return image


def parts_of(image: Image.Image, name: str) -> list[np.ndarray]:
    """Masks of the creatures of a name: pixels of its colour, left and right of gaps."""
    mask = (np.abs(np.asarray(image.convert("RGB")).astype(int) - COLOURS.get(name, (0, 255, 0))) < 12).all(-1)
    columns = np.flatnonzero(mask.any(0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 8) + 1) if len(columns) else []
    return [mask & np.isin(np.arange(mask.shape[1]), group) for group in groups]


class Eyes:
    """All five models at once; `pretend` finds a name on another's colour, with a score."""

    def __init__(self, calls: list[str], pretend: Mapping[str, tuple[str, float]], yes: float | None) -> None:
        self.calls, self.pretend, self.yes, self.name = calls, pretend, yes, "made"

    def detect(self, image, names):
        (name,) = names
        self.calls.append(f"detect {name}")
        colour, score = self.pretend.get(name, (name, 0.8))
        return [Detection(name, mask_box(mask), score) for mask in parts_of(image, colour)]

    def cut(self, image, boxes):
        self.calls.append("cut")
        found = []
        for box in boxes:
            best = max(
                (mask for name in COLOURS for mask in parts_of(image, name)),
                key=lambda mask: sum(-abs(a - b) for a, b in zip(mask_box(mask), box)),
            )
            found.append((best, 0.9))
        return found

    def joints(self, image, boxes):
        """17 joints: the farthest pixels of the creature in 17 directions."""
        self.calls.append("joints")
        rows = []
        for mask, _ in self.cut(image, boxes):
            ys, xs = np.nonzero(mask)
            angles = np.linspace(0, 2 * np.pi, 17, endpoint=False)
            far = [np.argmax((xs - xs.mean()) * np.cos(a) + (ys - ys.mean()) * np.sin(a)) for a in angles]
            rows.append([[(xs[i] + 0.5) / image.width, (ys[i] + 0.5) / image.height, 0.9] for i in far])
        return np.array(rows)

    def pictures(self, images):
        self.calls.append("embed")
        rows = []
        for image in images:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(float)
            rows.append(pixels[(pixels < 250).any(1)].mean(0) - 100)
        return torch.tensor(np.array(rows), dtype=torch.float32)

    def shows(self, image, names, relation):
        return None if self.yes is None else self.yes if relation != "standing next to" else 0.1

    def place(self, image):
        return "in a grey room."

    def is_kind(self, image, name):
        return "animal"


def made_backends(calls: list[str] | None = None, pretend=(), yes: float | None = None) -> Backends:
    """Backends that read colours; `calls` collects what was asked of them."""
    eyes = Eyes([] if calls is None else calls, dict(pretend), yes)
    part = Part("made", f"made {sorted(dict(pretend))} {yes}", "MIT", lambda: None, lambda: eyes)
    return Backends(part, part, {AP10K: part}, part, part)


HONEST = {
    "target": [("wolf", (0.05, 0.2, 0.45, 0.9), STANDING), ("leopard", (0.52, 0.2, 0.95, 0.9), WAVING)],
    "1 wolf": [("wolf", (0.2, 0.1, 0.9, 0.7), LYING)],
    "2 leopard": [("leopard", (0.1, 0.2, 0.7, 0.95), STANDING)],
}


def write_raw(folder: Path, pictures=HONEST, name: str = "01", noise: int = 1) -> Path:
    """A raw triplet; returns the folder of triplets."""
    (folder / name).mkdir(parents=True)
    for number, (stem, blobs) in enumerate(pictures.items()):
        draw(blobs, noise + number).save(folder / name / f"{stem}.png")
    return folder
