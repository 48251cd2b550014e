"""Keep references in their regions by a bias on the logits of attention.

The paper routes in training only (DreamO arXiv:2504.16915, section 3.3). At inference this is ours: with m_i in [0, 1]
the region of reference i on the token grid, lambda the strength, w_i the weight and mu the isolation,

    rows -> columns                        added to the logit
    image token p -> reference i           -lambda (1 - m_i[p]) + log w_i
    text          -> reference i           log w_i
    reference i   -> image token p         -lambda (1 - m_i[p])
    reference i   -> reference j           -mu
    copies of i  <-> image token p         -lambda (1 - m_i[p])     (copies: where the text repeats reference i)
    copies of i  <-> reference j           -mu
    everything else                        0

Copies are the placeholder [ref#i], or the tokens that a vision encoder puts into the text. The latter are pictures as
well: they also get log w_i, and copies of i pay mu for copies of j. Nothing but itself reads a reference of weight 0.

Read by columns, B is constant in the keys of a reference; read by rows, all tokens of a reference, and all of the
text, share a row. ``steered_attention`` uses that; the matrix is never written out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..shapes import check_shape
from .call_layout import CallLayout, Span, span_mask

HARD = 1e4  # a strength that leaves no weight: exp(-1e4) is 0 in every dtype, and half precision holds it
INSIDE = 0.5  # where a hard border runs in a soft region


@dataclass(frozen=True, eq=False)
class Steering:
    """Settings of the bias.

    Attributes:
        strength: lambda in nats, >= 0; HARD or more cuts regions at INSIDE and closes the border.
        isolation: mu in nats, >= 0, between different references.
        weights: w of each reference, >= 0.
        regions: for each reference (h, w) in [0, 1] on the token grid, or None for everywhere.
        to_image: also from references to the picture, so that a reference takes nothing in from elsewhere.
        copies_are_pictures: the copies come from a vision encoder; placeholders are words.
    """

    strength: float
    isolation: float
    weights: tuple[float, ...]
    regions: tuple[Tensor | None, ...]
    to_image: bool = True
    copies_are_pictures: bool = False

    @property
    def hard(self) -> bool:
        return self.strength >= HARD

    def outside(self, index: int) -> Tensor | None:
        """(N,) float32 bias of the picture's tokens outside a reference's region; None where there is none."""
        region = self.regions[index]
        if region is None or self.strength == 0:
            return None
        away = (region < INSIDE).float() if self.hard else 1 - region.float().clamp(0, 1)
        return -min(self.strength, HARD) * away.flatten() if bool(away.any()) else None

    def log_weight(self, index: int) -> float:
        """log w, or -HARD for a weight of 0."""
        weight = self.weights[index]
        return math.log(weight) if weight > 0 else -HARD


def check_regions(steering: Steering, layout: CallLayout) -> None:
    """Check that there are one weight and one region on the picture's token grid for each reference.

    Raises:
        ValueError: another number or another size.
    """
    count = len(layout.references)
    if not len(steering.weights) == len(steering.regions) == count:
        raise ValueError(
            f"steering: expected a weight and a region for each of {count} references, got "
            f"{len(steering.weights)} and {len(steering.regions)}."
        )
    for region in steering.regions:
        if region is not None:
            check_shape(region, "h w", "region on the token grid", h=layout.grid[0], w=layout.grid[1])


def picture_bias(steering: Steering, layout: CallLayout) -> Iterator[list[tuple[tuple[Span, ...], Tensor]]]:
    """For each reference: its keys, and the bias that each of the picture's queries adds to them, (N,) float32.

    One entry where latents and copies cost the same, else two.
    """
    tokens = layout.frames * layout.grid[0] * layout.grid[1]
    for index, (latent, copies) in enumerate(zip(layout.references, layout.all_copies, strict=True)):
        outside = steering.outside(index)
        outside = torch.zeros(tokens) if outside is None else outside.repeat(layout.frames)
        weighted = (outside + steering.log_weight(index)).clamp_min(-HARD)
        if steering.copies_are_pictures or steering.weights[index] == 1 or not copies:
            yield [(latent + copies, weighted)]
        else:
            yield [(latent, weighted), (copies, outside)]


def shared_bias(steering: Steering, layout: CallLayout) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of B for everything but the picture: which queries, (K,) bool, and their row, (K,) float32."""
    rest = torch.ones(layout.size, dtype=torch.bool)
    for index, (latent, copies) in enumerate(zip(layout.references, layout.all_copies, strict=True)):
        for spans, is_copy in ((latent, False), (copies, True)):
            rows = span_mask(layout.size, spans)
            rest &= ~rows
            yield rows, _row_of_reference(steering, layout, index, is_copy)
    text = span_mask(layout.size, layout.text) & rest
    yield text, _row_of_text(steering, layout)
    yield rest & ~text, _closed(steering, layout, None)


def _row_of_text(steering: Steering, layout: CallLayout) -> Tensor:
    """Make the text's row: the weights of references, and of their copies where those are pictures."""
    row = _closed(steering, layout, None)
    for index, latent in enumerate(layout.references):
        _add_weight(row, steering, layout, index, latent)
    return row.clamp_min(-HARD)


def _row_of_reference(steering: Steering, layout: CallLayout, index: int, is_copy: bool) -> Tensor:
    """Make the row of a reference (latents or copies in the text).

    It weighs the picture outside the reference's region, and the other references.
    """
    row = _closed(steering, layout, index)
    outside = steering.outside(index)
    if outside is not None and layout.image is not None and (steering.to_image or is_copy):
        row[slice(*layout.image)] += outside.repeat(layout.frames)
    for other, (latent, copies) in enumerate(zip(layout.references, layout.all_copies, strict=True)):
        if other != index:
            row[span_mask(layout.size, latent)] -= min(steering.isolation, HARD)
            if not is_copy or steering.copies_are_pictures:
                row[span_mask(layout.size, copies)] -= min(steering.isolation, HARD)
        if is_copy:  # copies are text
            _add_weight(row, steering, layout, other, latent, own=other == index)
    return row.clamp_min(-HARD)


def _add_weight(
    row: Tensor, steering: Steering, layout: CallLayout, index: int, latent: tuple[Span, ...], own: bool = False
) -> None:
    """Add log w to a row of the text; a reference's own copies go on reading it at weight 0."""
    if own and steering.weights[index] == 0:
        return
    row[span_mask(layout.size, latent)] += steering.log_weight(index)
    if steering.copies_are_pictures and layout.copies and not own:
        row[span_mask(layout.size, layout.copies[index])] += steering.log_weight(index)


def _closed(steering: Steering, layout: CallLayout, reader: int | None) -> Tensor:
    """(K,) with -HARD at references of weight 0, for everything but themselves."""
    row = torch.zeros(layout.size)
    for index, spans in enumerate(layout.own if steering.copies_are_pictures else layout.references):
        if steering.weights[index] == 0 and index != reader:
            row[span_mask(layout.size, spans)] = -HARD
    return row
