"""Protocols of the models, and models that are opened one at a time when a stage needs them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from .thresholds import Thresholds

Box = tuple[float, float, float, float]  # x0 y0 x1 y1, fractions of the picture


class Cutter(Protocol):
    """Cuts out what stands in boxes; see also `common.vision.Detector` and `ImageEncoder`."""

    def cut(self, image: Image.Image, boxes: Sequence[Box]) -> list[tuple[np.ndarray, float | None]]:
        """Return for each box a mask (H, W) bool, no pixel in two of them, and the model's own estimate of its IoU."""
        ...


class Pose(Protocol):
    """Finds 17 joints in each box."""

    def joints(self, image: Image.Image, boxes: Sequence[Box]) -> np.ndarray:
        """Return (N, 17, 3): x, y in fractions of the picture, and a score from 0 to 1."""
        ...


class Reader(Protocol):
    """Says whether a relation is to be seen, and where it happens."""

    def shows(self, image: Image.Image, names: Sequence[str], relation: str) -> float | None:
        """Return the probability that the first subject does it to the others; None if it cannot say."""
        ...

    def place(self, image: Image.Image) -> str:
        """Return a few words such as "in a snowy forest"; may be empty."""
        ...

    def is_kind(self, image: Image.Image, name: str) -> str:
        """Return animal, person or object; empty if it cannot say."""
        ...


@dataclass(frozen=True)
class Part:
    """A model that can be opened.

    Attributes:
        name: as the options name it.
        key: of its cached answers; changes with its files.
        licence: of its weights, or "unknown".
        check: looks at its files without loading weights; raises ValueError.
        open: the model.
        note: printed once where its licence restricts what may be done with the results.
    """

    name: str
    key: str
    licence: str
    check: Callable[[], object]
    open: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Backends:
    """All models of an annotation; None for a model that is left out.

    Attributes:
        poses: by skeleton (`ap10k`, `coco`).
        thresholds: the gates' numbers before a file changes them.
    """

    detector: Part
    segmenter: Part | None = None
    poses: Mapping[str, Part] = field(default_factory=dict)
    embedder: Part | None = None
    reader: Part | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def parts(self) -> dict[str, Part]:
        """List the models that are not None, by role."""
        named = {"detector": self.detector, "segmenter": self.segmenter, "embedder": self.embedder}
        named |= {f"pose {skeleton}": part for skeleton, part in self.poses.items()} | {"reader": self.reader}
        return {role: part for role, part in named.items() if part is not None}


@contextmanager
def opened_part(part: Part) -> Iterator[Any]:
    """Open a model while a stage runs; nothing else holds it, so its memory is free afterwards."""
    holder = [part.open()]
    try:
        yield holder[0]
    finally:
        holder.clear()
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
