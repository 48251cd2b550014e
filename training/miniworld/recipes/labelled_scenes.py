"""Labelled renders for the judges: every relation and every identity, also those held out of pretraining.

The judges measure; they never teach. Their validation renders come from seeds and identities of their own.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..world.relations import PAIRS
from ..world.renderer import render
from ..world.scene import draw_plan
from ..world.traits import ACCESSORIES, PATTERNS, SPECIES, CreatureTraits

RELATIONS = tuple(PAIRS)
SUBJECTS = 2
TRAITS = {"species": 8, "fur": 12, "belly": 6, "pattern": 5, "accessory": 8, "accent": 6}


def trait_row(identity: CreatureTraits) -> list[int]:
    """An identity as class indices, in the order of TRAITS."""
    return [
        SPECIES.index(identity.species),
        identity.fur,
        identity.belly,
        PATTERNS.index(identity.pattern),
        ACCESSORIES.index(identity.accessory),
        identity.accent,
    ]


def _draw(seed: int, size: int, index: int) -> tuple[np.ndarray, list, np.ndarray, np.ndarray]:
    rng = np.random.default_rng((seed, 3, index))
    plan = draw_plan(rng, relation=RELATIONS[index % len(RELATIONS)], held_out=None)
    drawn = render(plan, size)
    return drawn.image, [trait_row(who) for who in plan.identities], drawn.boxes, drawn.keypoints


def render_labelled_scenes(folder: Path, count: int, seed: int, processes: int, size: int = 128) -> Iterator[str]:
    """Draws `count` two-creature scenes, relations in turn, into `folder`; yields lines of progress."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
    traits, boxes = np.zeros((count, SUBJECTS, len(TRAITS)), np.int64), np.zeros((count, SUBJECTS, 4), np.float32)
    keypoints = np.zeros((count, SUBJECTS, 17, 3), np.float32)
    with ProcessPoolExecutor(processes) as pool:
        for index, row in enumerate(pool.map(partial(_draw, seed, size), range(count), chunksize=30)):
            images[index], traits[index], boxes[index], keypoints[index] = row
            if index % 500 == 499:
                yield f"truth {index + 1}/{count}"
    images.flush()
    np.savez(folder / "labels.npz", traits=traits, boxes=boxes, keypoints=keypoints)
    (folder / "truth.json").write_text(json.dumps({"count": count, "seed": seed}), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Truth:
    """Labelled renders; the last tenth is for validation.

    Attributes:
        images: (N, 128, 128, 3) uint8.
        relations: (N,) index into RELATIONS.
        traits: (N, 2, 6) class indices in the order of TRAITS.
        boxes: (N, 2, 4); keypoints: (N, 2, 17, 3).
    """

    images: np.ndarray
    relations: np.ndarray
    traits: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray

    @property
    def training(self) -> int:
        """Scenes before this index are for training."""
        return len(self.images) * 9 // 10

    @classmethod
    def open(cls, folder: Path) -> "Truth":
        """Opens a finished folder.

        Raises:
            FileNotFoundError: not rendered yet.
        """
        if not (folder / "truth.json").exists():
            raise FileNotFoundError(f"{folder}: expected labelled renders; run python -m training.miniworld truth")
        labels = np.load(folder / "labels.npz")
        images = np.load(folder / "images.npy", mmap_mode="r")
        return cls(
            images, np.arange(len(images)) % len(RELATIONS), labels["traits"], labels["boxes"], labels["keypoints"]
        )
