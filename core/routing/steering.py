"""Keeping references in their regions: a bias on attention logits, in three forms that agree.

The paper routes in training only (arXiv:2504.16915, section 3.3). At inference this is ours: with m_i in [0, 1] the
region of reference i on the token grid, lambda the strength, w_i the weight and mu the isolation,

    rows -> columns                        added to the logit
    image token p -> reference i           -lambda (1 - m_i[p]) + log w_i
    text          -> reference i           log w_i
    reference i   -> image token p         -lambda (1 - m_i[p])
    reference i   -> reference j           -mu
    words of i   <-> image token p         -lambda (1 - m_i[p])     (words: the placeholder [ref#i])
    words of i   <-> reference j           -mu
    everything else                        0

All of it is a sum of few products of a row factor and a column factor, so it need not be written out as a matrix:

    dense     B = rows^T columns, (S, S), the plainest.
    channels  each pair of factors becomes one more channel of query and key; any fused kernel runs it, without a mask.
    groups    hard borders only: picture tokens that see the same references attend together to just what they see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import expect
from .condition import Sequence

HARD = 1e4  # a strength that leaves no weight: exp(-1e4) is 0 in every dtype, and half precision holds it
INSIDE = 0.5  # where a hard border runs in a soft region


@dataclass(frozen=True, eq=False)
class Steering:
    """What is to be kept apart, and how firmly.

    Attributes:
        strength: lambda in nats, >= 0; HARD or more cuts regions at INSIDE and closes the border.
        isolation: mu in nats, >= 0, between different references.
        weights: w of each reference, > 0.
        regions: for each reference (h, w) in [0, 1] on the token grid, or None for everywhere.
        words: for each reference the text positions of its placeholder.
        to_image: also from references to the picture, so that a reference takes nothing in from elsewhere.
    """

    strength: float
    isolation: float
    weights: tuple[float, ...]
    regions: tuple[Tensor | None, ...]
    words: tuple[tuple[int, ...], ...] = ()
    to_image: bool = True

    @property
    def hard(self) -> bool:
        return self.strength >= HARD

    def outside(self, index: int) -> Tensor | None:
        """(N,) float32 penalty of the picture tokens outside a reference's region; None where there is none."""
        region = self.regions[index]
        if region is None or self.strength == 0:
            return None
        away = (region < INSIDE).float() if self.hard else 1 - region.float().clamp(0, 1)
        return -min(self.strength, HARD) * away.flatten() if bool(away.any()) else None


@dataclass(frozen=True, eq=False)
class Bias:
    """B = rows^T columns.

    Attributes:
        rows, columns: (K, S) float32.
    """

    rows: Tensor
    columns: Tensor

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(S, S), with rows padded to a multiple of 8 in memory: fused kernels want them aligned."""
        size = self.rows.shape[-1]
        matrix = torch.empty(size, math.ceil(size / 8) * 8, dtype=dtype, device=self.rows.device)[:, :size]
        return matrix.copy_(self.rows.transpose(0, 1) @ self.columns)

    def to(self, device: torch.device) -> Bias:
        return Bias(self.rows.to(device), self.columns.to(device))


def bias_of(steering: Steering, sequence: Sequence) -> Bias | None:
    """The factors of the table above; None when nothing is added anywhere."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for index in range(len(sequence.references)):
        pairs += _seen(steering, sequence, index) + _seeing(steering, sequence, index)
        pairs += _words(steering, sequence, index)
    if not pairs:
        return None
    return Bias(torch.stack([row for row, _ in pairs]), torch.stack([column for _, column in pairs]))


def _marked(sequence: Sequence, *slices: slice | list[int]) -> Tensor:
    """(S,) with 1 at the given places."""
    marks = torch.zeros(sequence.size)
    for place in slices:
        marks[place] = 1.0
    return marks


def _seen(steering: Steering, sequence: Sequence, index: int) -> list[tuple[Tensor, Tensor]]:
    """What everything else pays to read reference i: its columns."""
    row = torch.zeros(sequence.size)
    weight = steering.weights[index]
    row[: sequence.image_tokens.stop] = math.log(weight) if weight > 0 else -HARD
    outside = steering.outside(index)
    if outside is not None:
        row[sequence.image_tokens] += outside
    if steering.isolation:
        for other in range(len(sequence.references)):
            if other != index:
                row[sequence.reference_tokens(other)] = -min(steering.isolation, HARD)
                row[list(_of(steering, other))] -= min(steering.isolation, HARD)
    return [(row.clamp_min(-HARD), _marked(sequence, sequence.reference_tokens(index)))] if bool(row.any()) else []


def _seeing(steering: Steering, sequence: Sequence, index: int) -> list[tuple[Tensor, Tensor]]:
    """What reference i and its words pay to read the picture: their rows."""
    outside = steering.outside(index)
    if outside is None:
        return []
    column = torch.zeros(sequence.size)
    column[sequence.image_tokens] = outside
    own = [sequence.reference_tokens(index)] if steering.to_image else []
    return [(_marked(sequence, *own, list(_of(steering, index))), column)]


def _words(steering: Steering, sequence: Sequence, index: int) -> list[tuple[Tensor, Tensor]]:
    """What the picture and other references pay to read the words of reference i: their columns."""
    words = list(_of(steering, index))
    row = torch.zeros(sequence.size)
    outside = steering.outside(index)
    if outside is not None:
        row[sequence.image_tokens] = outside
    for other in range(len(sequence.references)):
        if other != index:
            row[sequence.reference_tokens(other)] = -min(steering.isolation, HARD)
    return [(row, _marked(sequence, words))] if words and bool(row.any()) else []


def _of(steering: Steering, index: int) -> tuple[int, ...]:
    return steering.words[index] if steering.words else ()


def attend_dense(query: Tensor, key: Tensor, value: Tensor, matrix: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d) + B) V with a matrix, (B, H, S, d) each, matrix broadcastable to (B, H, S, S)."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=matrix)


@dataclass(frozen=True, eq=False)
class Channels:
    """A bias as further channels of query and key.

    Attributes:
        query, key: (S, K') factors; their products, over sqrt(d), are the bias.
    """

    query: Tensor
    key: Tensor

    @classmethod
    def of(cls, bias: Bias, width: int, dtype: torch.dtype) -> Channels:
        """Factors for heads of ``width`` channels, padded to a multiple of 8 as fused kernels want."""
        # the root of sqrt(d) on either side: a product of HARD with all of it overflows half precision
        scale = width ** 0.25
        spare = -bias.rows.shape[0] % 8
        sides = (F.pad(side.transpose(0, 1) * scale, (0, spare)).to(dtype) for side in (bias.rows, bias.columns))
        return cls(*sides)


def attend_channels(query: Tensor, key: Tensor, value: Tensor, channels: Channels) -> Tensor:
    """The same without a mask; (B, H, S, d) each."""
    width = query.shape[-1]
    lead = query.shape[:2]
    wide_query = torch.cat((query, channels.query.expand(*lead, -1, -1)), dim=-1)
    wide_key = torch.cat((key, channels.key.expand(*lead, -1, -1)), dim=-1)
    wide_value = F.pad(value, (0, channels.key.shape[-1]))  # fused kernels want one width for all three
    out = F.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=width ** -0.5)
    return out[..., :width]


@dataclass(frozen=True, eq=False)
class Groups:
    """Tokens that see the same tokens.

    Attributes:
        members: for each group (rows, columns), long positions in the sequence.
    """

    members: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, bias: Bias) -> Groups | None:
        """Rows of equal factors together; None if the bias is not hard everywhere.

        Rows with equal factors see the same, so the matrix is never built.
        """
        factors, owner = torch.unique(bias.rows, dim=1, return_inverse=True)
        members = []
        for index, factor in enumerate(factors.unbind(dim=1)):
            seen = factor @ bias.columns
            if not bool(((seen == 0) | (seen <= -HARD)).all()):
                return None
            members.append(((owner == index).nonzero()[:, 0], (seen == 0).nonzero()[:, 0]))
        return cls(tuple(members))

    def to(self, device: torch.device) -> Groups:
        return Groups(tuple((rows.to(device), columns.to(device)) for rows, columns in self.members))


def attend_groups(query: Tensor, key: Tensor, value: Tensor, groups: Groups) -> Tensor:
    """The same for hard borders: one attention a group, over what it sees; (B, H, S, d) each."""
    out = torch.empty_like(value)
    for rows, columns in groups.members:
        out[:, :, rows] = F.scaled_dot_product_attention(query[:, :, rows], key[:, :, columns], value[:, :, columns])
    return out


def check_regions(steering: Steering, sequence: Sequence) -> None:
    """One region and one weight a reference, on the picture's token grid.

    Raises:
        ValueError: another number or another size.
    """
    count = len(sequence.references)
    if not len(steering.weights) == len(steering.regions) == count or (steering.words and len(steering.words) != count):
        raise ValueError(f"steering: expected a weight and a region for each of {count} references, got "
                         f"{len(steering.weights)} and {len(steering.regions)}.")
    for region in steering.regions:
        if region is not None:
            expect(region, "h w", "region on the token grid", h=sequence.image[0], w=sequence.image[1])
