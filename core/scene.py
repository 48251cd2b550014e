"""The scene that a user describes: subjects, each with photographs, a phrase, a box and a weight.

Boxes are fractions of the output picture, origin top left, x to the right. On a token grid a box covers
the cells it touches, floor/ceil at the edges, for any aspect ratio (MS-Diffusion, arXiv:2406.07209,
section 3.3, whose code knows square grids only).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# A box edge this close to a cell border is on it: 0.15 * 20 is 3.0000000000000004 in binary.
_EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Box:
    """A rectangle in fractions of the picture, ``0 <= x0 < x1 <= 1`` and the same for y."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        faults = []
        for name in ("x0", "y0", "x1", "y1"):
            value = getattr(self, name)
            if not 0 <= value <= 1:  # also NaN and infinity
                faults.append(f"{name} = {value:g}, expected 0 to 1")
        for low, high in (("x0", "x1"), ("y0", "y1")):
            if getattr(self, low) >= getattr(self, high):
                faults.append(f"{low} = {getattr(self, low):g} is not less than {high} = {getattr(self, high):g}")
        if faults:
            raise ValueError(
                f"box: {'; '.join(faults)}. Boxes are fractions of the output picture, left top right "
                "bottom, e.g. 0 0 0.5 1 for its left half."
            )

    def tensor(self) -> Tensor:
        """(4,) float32: x0, y0, x1, y1."""
        return torch.tensor([self.x0, self.y0, self.x1, self.y1], dtype=torch.float32)

    def cell_shares(self, height: int, width: int) -> Tensor:
        """(h, w) float32 in [0, 1]: the share of each cell of a grid that the box covers."""

        def covered(low: float, high: float, size: int) -> Tensor:
            edges = torch.arange(size + 1, dtype=torch.float32)
            return (edges[1:].clamp(max=high * size) - edges[:-1].clamp(min=low * size)).clamp_min(0)

        return covered(self.y0, self.y1, height)[:, None] * covered(self.x0, self.x1, width)

    def seen_through(self, window: Box) -> Box | None:
        """Crop to a window, in fractions of the window; None if nothing is inside."""
        across, down = window.x1 - window.x0, window.y1 - window.y0
        x0, x1 = ((x - window.x0) / across for x in (self.x0, self.x1))
        y0, y1 = ((y - window.y0) / down for y in (self.y0, self.y1))
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in (x0, y0, x1, y1))
        return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


WHOLE_PICTURE = Box(0.0, 0.0, 1.0, 1.0)


def coverage(boxes: Tensor, height: int, width: int) -> Tensor:
    """Mark the cells of a token grid that boxes touch: floor of the low edges, ceil of the high ones.

    Args:
        boxes: (..., 4) fractions, x0 y0 x1 y1; zeros touch nothing.
        height, width: of the grid.

    Returns:
        (..., h, w) bool.
    """
    edges = boxes.double() * torch.tensor([width, height, width, height], device=boxes.device)
    low, high = (edges[..., :2] + _EDGE_TOLERANCE).floor(), (edges[..., 2:] - _EDGE_TOLERANCE).ceil()
    columns, rows = (torch.arange(size, device=boxes.device) for size in (width, height))
    across = (columns >= low[..., 0, None]) & (columns < high[..., 0, None])  # (..., w)
    down = (rows >= low[..., 1, None]) & (rows < high[..., 1, None])  # (..., h)
    return down[..., :, None] & across[..., None, :]


@dataclass(frozen=True)
class Layout:
    """One box per subject."""

    boxes: tuple[Box, ...]

    def tensor(self) -> Tensor:
        """(S, 4) float32."""
        return torch.stack([box.tensor() for box in self.boxes])

    def coverage(self, height: int, width: int, window: Box = WHOLE_PICTURE) -> Tensor:
        """Mark the cells that each subject may act on.

        Args:
            height, width: of the token grid.
            window: the part of the picture the grid shows; a subject outside it acts nowhere.

        Returns:
            (S, h, w) bool.
        """
        boxes = [box.seen_through(window) for box in self.boxes]
        return coverage(torch.stack([torch.zeros(4) if box is None else box.tensor() for box in boxes]), height, width)


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject of the picture.

    Attributes:
        name: the phrase that names it in the prompt, e.g. "plushie bear".
        photographs: (V, 3, H, W) float in [0, 1], RGB; V views of the same subject.
        box: where it stands in the output picture.
        weight: how strongly its identity acts, relative to the others; 1 is as published.
        mask: (V, H, W) float in [0, 1], what of the photographs is the subject; None: all of it.
    """

    name: str
    photographs: Tensor
    box: Box = WHOLE_PICTURE
    weight: float = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        who = f"subject '{self.name}'"
        faults = []
        if not self.name.strip():
            faults.append("name: expected the words that name it in the prompt, got nothing")
        if self.photographs.ndim != 4 or self.photographs.shape[1] != 3 or 0 in self.photographs.shape:
            faults.append(f"image: expected at least one RGB picture, got shape {tuple(self.photographs.shape)}")
        elif not torch.isfinite(self.photographs).all():
            faults.append("image: expected numbers in [0, 1], got NaN or infinity; load the picture again")
        if not math.isfinite(self.weight):
            faults.append(f"weight: expected a number, got {self.weight}")
        if self.mask is not None:
            views, _, height, width = self.photographs.shape if self.photographs.ndim == 4 else (0, 0, 0, 0)
            if tuple(self.mask.shape) != (views, height, width):
                faults.append(
                    f"mask: expected the picture's size ({views}, {height}, {width}), got {tuple(self.mask.shape)}"
                )
            elif not torch.isfinite(self.mask).all():
                faults.append("mask: expected numbers in [0, 1], got NaN or infinity")
            elif not bool((self.mask > 0.5).flatten(1).any(dim=1).all()):
                faults.append("mask: expected some of the picture to be the subject (white), got an empty mask")
        if faults:
            raise ValueError(f"{who}: {'; '.join(faults)}.")


@dataclass(frozen=True, eq=False)
class Scene:
    """The subjects of one picture, in order."""

    subjects: tuple[Subject, ...] = field(default=())

    @property
    def layout(self) -> Layout:
        return Layout(tuple(subject.box for subject in self.subjects))

    def weights(self) -> Tensor:
        """(S,) float32."""
        return torch.tensor([subject.weight for subject in self.subjects], dtype=torch.float32)

    def check_subjects(self) -> None:
        """Check that there is something to draw.

        Raises:
            ValueError: no subject.
        """
        if not self.subjects:
            raise ValueError("scene: expected at least one subject, got none. Connect a Subject node.")

    def with_subject(self, subject: Subject) -> Scene:
        """Return a new scene with one subject more, last."""
        return Scene((*self.subjects, subject))
