"""Render labelled scenes for the classifiers: every relation, every identity, and planted fused bodies to refuse.

Used only to train and validate the classifiers; they see held-out relations and identities, which the models that they
measure never do. The last tenth is for validation, drawn from the same streams under indices of its own.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..world import fusions
from ..world.relations import PAIRS
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import draw_plan
from ..world.traits import (
    ACCENTS,
    ACCESSORIES,
    BELLIES,
    EMBLEM_COLOURS,
    EMBLEMS,
    FURS,
    PATTERNS,
    SPECIES,
    CreatureTraits,
)
from .packed_images import PackedImages, compress, write_packed

RELATIONS = tuple(PAIRS)
FUSED = len(RELATIONS)  # the class that stands for "no two bodies here"
SUBJECTS, PIXELS = 2, 128
FUSED_EVERY = 6  # one picture in six is a planted fusion
TRAITS: dict[str, tuple[str, ...]] = {
    "species": SPECIES,
    "fur": tuple(FURS),
    "belly": tuple(BELLIES),
    "pattern": PATTERNS,
    "accessory": ACCESSORIES,
    "accent": tuple(ACCENTS),
    "emblem": EMBLEMS,
    "emblem_colour": tuple(EMBLEM_COLOURS),
}
LOOKS = ("species", "fur", "belly", "pattern", "accessory")  # the traits that identify a creature at a glance


def trait_row(traits: CreatureTraits) -> list[int]:
    """Return traits as class indices, in the order of TRAITS."""
    return [values.index(getattr(traits, name)) for name, values in TRAITS.items()]


@dataclass(frozen=True)
class Label:
    """Labels of one picture.

    Attributes:
        relation: index into RELATIONS, or FUSED.
        kind: index into `fusions.KINDS` of a planted fusion, else -1.
        traits: (2, 8) class indices; boxes: (2, 4); keypoints: (2, 17, 3); zeros for a fusion.
        emblem_visible: (2,) visible share of each emblem.
    """

    relation: int
    kind: int
    traits: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    emblem_visible: np.ndarray


def draw_labelled(seed: int, index: int) -> tuple[bytes, Label]:
    """Draw picture `index` of a labelled set: relations in turn, a fusion after every FUSED_EVERY - 1 of them."""
    if index % FUSED_EVERY == FUSED_EVERY - 1:
        rng = generator(seed, Stream.FUSION, index)
        kind = index // FUSED_EVERY % len(fusions.KINDS)
        shapes = ((SUBJECTS, len(TRAITS)), (SUBJECTS, 4), (SUBJECTS, 17, 3), (SUBJECTS,))
        return compress(fusions.plant(rng, fusions.KINDS[kind], PIXELS)), Label(FUSED, kind, *map(np.zeros, shapes))
    relation = (index - index // FUSED_EVERY) % len(RELATIONS)
    plan = draw_plan(generator(seed, Stream.LABELLED, index), relation=RELATIONS[relation], held_out=None)
    rendering = render(plan, PIXELS)
    traits = np.array([trait_row(who) for who in plan.cast])
    label = Label(relation, -1, traits, rendering.boxes, rendering.keypoints, rendering.emblem_visible)
    return compress(rendering.image), label


def render_labelled(folder: Path, count: int, seed: int, processes: int) -> Iterator[str]:
    """Draw `count` labelled pictures into `folder`; nothing to do if they exist."""
    done = folder / "labelled.json"
    facts = {"count": count, "seed": seed}
    if done.exists() and json.loads(done.read_text(encoding="utf-8")) == facts:
        return
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    labels: list[Label] = []

    def pictures(results: Iterator[tuple[bytes, Label]]) -> Iterator[bytes]:
        for picture, label in results:
            labels.append(label)
            yield picture

    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(partial(draw_labelled, seed), range(count), chunksize=50)
        write_packed(folder / "pictures.pack", pictures(results), PIXELS)
    names = ("relation", "kind", "traits", "boxes", "keypoints", "emblem_visible")
    np.savez_compressed(
        folder / "labels.npz", **{name: np.stack([getattr(one, name) for one in labels]) for name in names}
    )
    done.write_text(json.dumps(facts), encoding="utf-8")
    yield f"labelled: {count} drawn"


@dataclass(frozen=True, eq=False)
class LabelledScenes:
    """Labelled renders, opened for reading; arrays as in `Label`, with N in front."""

    pictures: PackedImages
    relation: np.ndarray
    kind: np.ndarray
    traits: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    emblem_visible: np.ndarray

    @property
    def training(self) -> int:
        """Pictures before this index are for training."""
        return len(self.pictures) * 9 // 10

    @classmethod
    def open(cls, folder: Path) -> "LabelledScenes":
        """Open a finished folder.

        Raises:
            FileNotFoundError: not rendered yet.
        """
        if not (folder / "labelled.json").exists():
            raise FileNotFoundError(f"{folder}: expected labelled renders, got none; render them first")
        arrays = dict(np.load(folder / "labels.npz"))
        integers = {name: arrays[name].astype(np.int64) for name in ("relation", "kind", "traits")}
        floats = {name: arrays[name].astype(np.float32) for name in ("boxes", "keypoints", "emblem_visible")}
        return cls(PackedImages(folder / "pictures.pack"), **integers, **floats)
