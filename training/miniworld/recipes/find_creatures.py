"""Find creatures in a picture of the miniworld by name: the detector finds boxes, the classifier names species."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.checkpoint import read

from ...common.boxes import mask_box, non_maximum_suppression
from ...common.eight_bits import restored
from ...common.vision import Detection
from ...host_diffusers.miniworld.architectures import FOLDER
from ..world.traits import SPECIES
from . import classifiers
from .detector_network import FILE, SIDE, CreatureDetector, decode
from .labelled_scenes import LOOKS
from .pictures import picture_tensor, to_tensor

# Middles of hugging creatures are faint: on 120 renders of a seed of their own, a peak of .15 finds most of them and
# little else. Scores are doubled, so that the threshold of .30 for every detector means this.
GAIN = 2.0
FAINTEST = 0.06  # score from which a peak may be a creature that another one covers
_SAME = 0.5  # IoU from which two peaks are of one creature
_PART = 0.85  # of a box inside another one from which it is a part: 0.77 is the most of two hugging creatures' boxes
_LEAST_SPECIES = 0.05  # probability below which a creature is none of the queried species


@dataclass(frozen=True, eq=False)
class Creature:
    """What may be a creature.

    Attributes:
        box: fractions of the picture; score: 0 to 1.
        chances: (8,), of each species.
    """

    box: tuple[float, ...]
    score: float
    chances: Tensor

    def score_as(self, species: str) -> float:
        """Return the score as a creature of a species, half of which is the chance of the species."""
        return self.score * (1 + float(self.chances[SPECIES.index(species)])) / 2


class MiniworldDetector:
    """`common.vision.Detector` for pictures of the miniworld; a name is found by its last word.

    Args:
        network: trained.
        judges: classifiers that name the species.
        accuracy: see `detector.validate`; empty before it is measured.
    """

    name = "miniworld"

    def __init__(self, network: CreatureDetector, judges: classifiers.Classifiers, accuracy: dict[str, float]) -> None:
        self.network, self.judges, self.accuracy = network, judges, accuracy

    def detect(self, image: Image.Image, names: Sequence[str]) -> list[Detection]:
        """Detect creatures of the species that some names end in; names of other things find nothing."""
        kinds = {name.lower().split()[-1]: name for name in names if name.split()}
        queried = [species for species in SPECIES if species in kinds]
        boxes, scores, species = self.find(picture_tensor(image, SIDE))
        if not queried or not len(boxes):
            return []
        columns = [SPECIES.index(one) for one in queried]
        detections = []
        for box, score, chances in zip(boxes, scores, species[:, columns]):
            best = int(chances.argmax())
            if chances[best] >= _LEAST_SPECIES:
                detections.append(Detection(kinds[queried[best]], tuple(box), score))
        return detections

    @torch.no_grad()
    def find(self, pixels: Tensor) -> tuple[list[tuple[float, ...]], list[float], Tensor]:
        """Return all candidates of a picture (1, 3, 128, 128): boxes, scores, and the chance of each species (N, 8)."""
        (rows,) = decode(*self.network(pixels))
        boxes = [box for _, box in rows]
        if not boxes:
            return [], [], torch.zeros(0, len(SPECIES))
        crops, _ = classifiers.crop_boxes(pixels, torch.tensor(boxes, dtype=torch.float32)[None])
        chances = self.judges.identity(crops)[0]["species"].softmax(-1)
        return boxes, [min(1.0, GAIN * score) for score, _ in rows], chances

    def creatures(self, pixels: Tensor) -> list[Creature]:
        """Return one candidate for each place in a picture (1, 3, 128, 128), the surest first."""
        boxes, scores, chances = self.find(pixels)
        rows = non_maximum_suppression(np.array(boxes), scores, _SAME) if boxes else []
        creatures: list[Creature] = []
        for row in rows:
            if scores[row] >= FAINTEST and all(_inside(boxes[row], one.box) < _PART for one in creatures):
                creatures.append(Creature(boxes[row], scores[row], chances[row]))
        return creatures


class TraitEncoder:
    """`common.vision.ImageEncoder` of looks: the chances of a creature's traits, so that a cosine is the mean overlap
    of species, fur, belly, pattern and accessory.

    Args:
        judges: classifiers of the crops' traits.
    """

    name = "miniworld"

    def __init__(self, judges: classifiers.Classifiers) -> None:
        self.judges = judges

    @torch.no_grad()
    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """Embed pictures, (N, E); the white padding of a crop is cut off, since the classifier saw stretched boxes."""
        crops = [_without_margin(image).resize((classifiers.CROP,) * 2, Image.Resampling.BILINEAR) for image in images]
        logits, _ = self.judges.identity(to_tensor([np.asarray(crop) for crop in crops]))
        return torch.cat([logits[name].softmax(-1).sqrt() for name in LOOKS], dim=1)


def _without_margin(image: Image.Image) -> Image.Image:
    """Cut white rows and columns off a picture's edges."""
    pixels = np.asarray(image.convert("RGB"))
    box = mask_box((pixels < 255).any(-1))
    if box is None:
        return image.convert("RGB")
    width, height = image.size
    x0, y0, x1, y1 = box
    return image.convert("RGB").crop((round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height)))


def _inside(box: tuple[float, ...], whole: tuple[float, ...]) -> float:
    """Return the share of a box that lies in another one."""
    sides = [min(box[axis + 2], whole[axis + 2]) - max(box[axis], whole[axis]) for axis in (0, 1)]
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(sides[0], 0.0) * max(sides[1], 0.0) / area if area else 1.0


def load_detector(folder: Path = FOLDER) -> MiniworldDetector:
    """Load the detector that comes with the miniworld.

    Raises:
        ValueError: its file is missing.
    """
    weights, facts = read(folder / FILE)
    network = CreatureDetector()
    network.load_state_dict(restored(weights))
    return MiniworldDetector(
        network.eval().requires_grad_(False), classifiers.load_shipped(folder), json.loads(facts.get("accuracy", "{}"))
    )
