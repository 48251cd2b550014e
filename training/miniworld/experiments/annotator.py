"""The miniworld's models as those of an annotation: they see pixels alone, as a stranger's models would.

What is imported from `..recipes` is all that an annotation knows of the world. There is no segmenter to load: a
creature is what the backdrop's colours do not reach from outside its box, and of two creatures a pixel belongs to the
one whose own colours it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...annotation.backends import Backends, Box, Part
from ...annotation.thresholds import DetectionLimits, Limits, Thresholds
from ...common.vision import Detection
from ...data.skeletons import AP10K
from ...evaluation.judge.answers import CannotAnswer
from ...host_diffusers.miniworld.architectures import FOLDER
from ..recipes import classifiers
from ..recipes.find_creatures import SIDE, SPECIES, Creature, MiniworldDetector, TraitEncoder, load_detector
from .yes_no_judge import ClassifierJudge, open_judge

LICENCE = "MIT"
# Measured on renders (tests/bench/annotate.py): cosines of traits, and pictures of 128 pixels.
THRESHOLDS = Thresholds(
    detection=DetectionLimits(score=0.03),
    identity=Limits(reject=0.30, warn=0.45),
    # creatures of one name have few traits to differ in, and what another one covers is guessed
    identity_margin=Limits(reject=-0.25, warn=0.05),
    picture_px=Limits(reject=64, warn=96),
    subject_px=Limits(reject=16, warn=32),
)
_SURE = 0.2  # score of a peak that is surely a creature, so that there is no backdrop to learn from
_FILLED = 0.25  # of its box that a creature fills at least
_MARGIN = 0.06  # of a box's sides
_NEAR = 0.055  # colour distance from the backdrop below which a pixel is backdrop
_ROWS = 4  # above and below a pixel, in which the backdrop's colours are looked for
_AXES = np.array([[1 / 3, 1 / 3, 1 / 3], [1.5, -1.5, 0], [0.75, 0.75, -1.5]])  # light, red to green, yellow to blue


def pixels_of(image: Image.Image) -> Tensor:
    """(1, 3, 128, 128) in [0, 1]."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float() / 255


class Finder:
    """`common.vision.Detector`: every creature, with half of its score by the chance of its species.

    The network's peaks are checked by colours: a box that holds backdrop alone is no creature.
    """

    name = "miniworld"

    def __init__(self, detector: MiniworldDetector) -> None:
        self.detector = detector
        self._last: tuple[bytes, list[Creature]] = (b"", [])  # a picture is asked name by name

    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """See the protocol; names of other things find nothing."""
        key = image.convert("RGB").tobytes()
        if self._last[0] != key:
            self._last = key, self._creatures(pixels_of(image))
        species_of = {name: name.lower().split()[-1] for name in names if name.split()}
        return [
            Detection(name, creature.box, creature.score_as(species))
            for name, species in species_of.items()
            if species in SPECIES
            for creature in self._last[1]
        ]

    def _creatures(self, pixels: Tensor) -> list[Creature]:
        """Return the candidates that hold more than backdrop."""
        creatures = self.detector.creatures(pixels)
        sure = [_grown(one.box) for one in creatures if one.score >= _SURE]
        array = (pixels[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)

        def filled(creature: Creature) -> bool:
            inside = _inside([creature.box], array.shape[:2])[0]
            outside = ~_inside([*sure, _grown(creature.box)], array.shape[:2]).any(0)
            return bool(inside.any() and creature_pixels(array, outside)[inside].mean() >= _FILLED)

        return [one for one in creatures if filled(one)]


class ColourCutter:
    """`annotation.backends.Cutter` for drawn creatures; its estimate of its own IoU is None."""

    def cut(self, image: Image.Image, boxes: Sequence[Box]) -> list[tuple[np.ndarray, float | None]]:
        """See the protocol."""
        small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        masks = cut_by_colour(small, [_grown(box) for box in boxes])
        sized = (Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST) for mask in masks)
        return [(np.asarray(mask), None) for mask in sized]


def _grown(box: Box) -> Box:
    """A box of the detector with a margin: paws stand out of it."""
    x, y = (_MARGIN * (box[axis + 2] - box[axis]) for axis in (0, 1))
    return max(0.0, box[0] - x), max(0.0, box[1] - y), min(1.0, box[2] + x), min(1.0, box[3] + y)


def cut_by_colour(pixels: np.ndarray, boxes: Sequence[Box]) -> list[np.ndarray]:
    """Masks (H, W) of the creatures in boxes.

    Args:
        pixels: (H, W, 3) uint8.
        boxes: of every creature in the picture, fractions.
    """
    from scipy import ndimage

    height, width = pixels.shape[:2]
    inside = _inside(boxes, (height, width))
    creatures = creature_pixels(pixels, ~inside.any(0))
    # whose: by the colours of what only one box holds, and by the distance from the middle of the box
    codes = pixels.astype(int) // 16 @ np.array([256, 16, 1])
    rows, columns = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    scores = []
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        own = creatures & inside[index] & ~np.delete(inside, index, 0).any(0)
        histogram = np.bincount(codes[own], minlength=4096).reshape(16, 16, 16).astype(float)
        histogram = (ndimage.gaussian_filter(histogram, 0.8) + 1e-3).ravel()
        off = ((columns - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((rows - (y0 + y1) / 2) / (y1 - y0)) ** 2
        likely = np.log(histogram / histogram.sum())[codes] - 2.8 * off
        scores.append(np.where(inside[index], ndimage.uniform_filter(np.where(inside[index], likely, -12), 3), -np.inf))
    best = np.argmax(scores, axis=0)
    return [creatures & inside[index] & (best == index) for index in range(len(boxes))]


def creature_pixels(pixels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Find what the backdrop's colours do not reach from outside: (H, W) bool.

    Args:
        pixels: (H, W, 3) uint8.
        outside: (H, W) bool, where there is backdrop for sure.
    """
    from scipy import ndimage

    if not outside.any():
        return ~outside
    passable = outside | (_backdrop_distance(pixels / 255 @ _AXES.T, outside) < _NEAR)
    return ndimage.binary_fill_holes(~ndimage.binary_propagation(outside, mask=passable))


def _inside(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """Rasterise boxes: (N, H, W) bool."""
    height, width = size
    frames = np.zeros((len(boxes), height, width), bool)
    for frame, (x0, y0, x1, y1) in zip(frames, boxes):
        frame[int(y0 * height) : int(np.ceil(y1 * height)), int(x0 * width) : int(np.ceil(x1 * width))] = True
    return frames


def _backdrop_distance(colours: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Measure how far each pixel's colour is from the nearest of the backdrop in rows close by: (H, W)."""
    height = len(colours)
    distance = np.empty(outside.shape)
    for row in range(height):
        near = slice(max(0, row - _ROWS), row + _ROWS + 1)
        backdrop = colours[near][outside[near]]
        backdrop = np.unique(np.round((backdrop if len(backdrop) > 5 else colours[outside]) * 24) / 24, axis=0)
        distance[row] = np.linalg.norm(colours[row][:, None] - backdrop[None], axis=-1).min(1)
    return distance


class KeypointReader:
    """`annotation.backends.Pose`: the classifier's keypoints, which have no scores of their own."""

    def __init__(self, model: classifiers.Classifiers) -> None:
        self.model = model

    @torch.no_grad()
    def joints(self, image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        """See the protocol."""
        crops, areas = classifiers.crop_boxes(pixels_of(image), torch.tensor([boxes], dtype=torch.float32))
        _, points = self.model.identity(crops)
        places = areas[:, None, :2] + points * (areas[:, None, 2:] - areas[:, None, :2])
        return torch.cat((places, torch.ones_like(places[..., :1])), dim=-1).numpy()


class RelationReader:
    """`annotation.backends.Reader`: the classifier of relations; it has no words for places."""

    def __init__(self, judge: ClassifierJudge) -> None:
        self.judge = judge

    def shows(self, image: Image.Image, names: Sequence[str], relation: str) -> float | None:
        """See the protocol; None for relations that this world does not have."""
        if len(names) < 2:
            return None
        other = "another" if names[0] == names[1] else "the"
        try:
            question = f"Is the {names[0]} {relation} {other} {names[1]} in this picture?"
            return float(np.exp(self.judge.yes_no([image], question)[0]))
        except CannotAnswer:
            return None

    def place(self, image: Image.Image) -> str:
        """Say nothing."""
        return ""

    def is_kind(self, image: Image.Image, name: str) -> str:
        """Say animal: there is nothing else."""
        return "animal"


def backends() -> Backends:
    """Open the miniworld's models when a stage needs them."""
    files = (FOLDER / "detector.safetensors", FOLDER / classifiers.FILE)
    key = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]

    def part(role: str, load) -> Part:
        return Part(f"miniworld {role}", f"miniworld/{role}/{key}", LICENCE, lambda: None, load)

    return Backends(
        detector=part("detector", lambda: Finder(load_detector())),
        segmenter=part("colours", ColourCutter),
        poses={AP10K: part("keypoints", lambda: KeypointReader(classifiers.load_shipped()))},
        embedder=part("traits", lambda: TraitEncoder(classifiers.load_shipped())),
        reader=part("relations", lambda: RelationReader(open_judge())),
        thresholds=THRESHOLDS,
    )
