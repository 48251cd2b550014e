"""Positions of the tokens of text, picture and references in one attention of one model call.

Families put them in different orders, and run some attentions (refiners) over a part of them only. A model call is
described as stages: runs of attentions of one length, in the order in which they happen. A stage without a layout holds
no reference, or nothing that could be kept from one; its attentions are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Grid = tuple[int, int]
Span = tuple[int, int]  # first token, one past the last
Tokens = slice | Tensor  # of a sequence: a run of them, or their places


@dataclass(frozen=True)
class CallLayout:
    """The columns (keys) of one attention; the rows (queries) are the same tokens, or a part of them.

    Attributes:
        size: number of columns.
        grid: (rows, columns) of the picture's tokens in one frame.
        image: where the picture's tokens stand; None in attentions without it.
        text: where text stands, copies of references included.
        references: for each reference where its latent tokens stand; empty where this attention has none.
        copies: for each reference where the text repeats it: a vision encoder's tokens, or a placeholder.
        frames: pictures in a row (video); regions are the same in each.
    """

    size: int
    grid: Grid
    image: Span | None
    text: tuple[Span, ...]
    references: tuple[tuple[Span, ...], ...]
    copies: tuple[tuple[Span, ...], ...] = ()
    frames: int = 1

    def __post_init__(self) -> None:
        if self.image is not None and length([self.image]) != self.frames * self.grid[0] * self.grid[1]:
            raise ValueError(
                f"layout: expected {self.frames} x {self.grid[0]} x {self.grid[1]} picture tokens, got "
                f"the span {self.image}."
            )

    @property
    def all_copies(self) -> tuple[tuple[Span, ...], ...]:
        """``copies`` with an entry for each reference, empty where none are given."""
        return self.copies or ((),) * len(self.references)

    @property
    def own(self) -> tuple[tuple[Span, ...], ...]:
        """For each reference all of its tokens: latents and copies."""
        return tuple(latent + copy for latent, copy in zip(self.references, self.all_copies, strict=True))


@dataclass(frozen=True)
class Stage:
    """Attentions of one length that follow each other in a model call.

    Attributes:
        name: for messages.
        count: number of attentions.
        size: number of keys.
        layout: of the keys; None: they are left alone.
        recorded: whether maps are taken from them.
        tokens: of all reference latents, to be compared with the model's own counts; () if it gives none.
        cached: the keys that have queries where a cache keeps the others from earlier steps; None: always all.
    """

    name: str
    count: int
    size: int
    layout: CallLayout | None = None
    recorded: bool = False
    tokens: tuple[int, ...] = ()
    cached: Span | None = None


@dataclass
class Parts:
    """Puts parts one after another and remembers where each stands."""

    size: int = 0
    spans: dict[object, Span] = field(default_factory=dict)

    def add(self, name: object, tokens: int) -> Parts:
        self.spans[name] = (self.size, self.size + tokens)
        self.size += tokens
        return self


def length(spans: Iterable[Span]) -> int:
    """Tokens of some spans."""
    return sum(stop - start for start, stop in spans)


def span_mask(size: int, *parts: Iterable[Span]) -> Tensor:
    """(size,) bool, True in some spans."""
    mask = torch.zeros(size, dtype=torch.bool)
    for spans in parts:
        for start, stop in spans:
            mask[start:stop] = True
    return mask


def tokens_of(mask: Tensor) -> Tokens:
    """Index the tokens of a mask: by a slice where they follow each other, else by their places."""
    places = mask.nonzero()[:, 0]
    if len(places) and int(places[-1] - places[0]) + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places
