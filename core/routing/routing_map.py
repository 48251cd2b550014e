"""Which part of the picture a reference answers to (DreamO arXiv:2504.16915, equation 2).

    M_i = mean over its tokens of  Q_reference,i K_image^T / sqrt(d)

The mean over query tokens is linear, so it is taken first: a matrix-vector product instead of a matrix, and the
attention itself is left alone. Queries and keys are those that enter attention (after norm and rotary positions), heads
are averaged, all in float32. Three readings: ``logit`` as in the paper; ``mass``, how much of its attention a picture
token spends on the reference; ``competitive``, which reference wins a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..shapes import expect
from .condition import Sequence


def logit_map(query: Tensor, key: Tensor, sequence: Sequence) -> Tensor:
    """Equation 2 at one block.

    Args:
        query, key: (B, H, S, d) as they enter attention.
        sequence: the layout of S.

    Returns:
        (B, R, h, w) float32, scaled dot products; no softmax.
    """
    expect(query, "B H S d", "queries", S=sequence.size)
    means = [query[:, :, sequence.reference_tokens(index)].mean(dim=2, dtype=torch.float32)
             for index in range(len(sequence.references))]
    asked = torch.stack(means, dim=2)  # (B, H, R, d)
    image = key[:, :, sequence.image_tokens].float()  # (B, H, N, d)
    logits = (asked @ image.transpose(-1, -2)).mean(dim=1) / math.sqrt(query.shape[-1])
    return rearrange(logits, "b r (h w) -> b r h w", h=sequence.image[0])


def mass_map(query: Tensor, key: Tensor, sequence: Sequence, chunk: int = 1024, bias: Tensor | None = None) -> Tensor:
    """The share of a picture token's attention that goes to each reference.

    Args:
        query, key: (B, H, S, d) as they enter attention.
        sequence: the layout of S.
        chunk: picture tokens at a time; a whole attention matrix is never built.
        bias: (S, S) that attention adds to its logits, if any.

    Returns:
        (B, R, h, w) float32 in [0, 1].
    """
    expect(query, "B H S d", "queries", S=sequence.size)
    image = sequence.image_tokens
    parts = []
    for start in range(image.start, image.stop, chunk):
        rows = slice(start, min(start + chunk, image.stop))
        logits = query[:, :, rows].float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
        shares = (logits if bias is None else logits + bias[rows].float()).softmax(dim=-1)  # (B, H, n, S)
        parts.append(torch.stack([shares[..., sequence.reference_tokens(index)].sum(dim=-1).mean(dim=1)
                                  for index in range(len(sequence.references))], dim=1))
    return rearrange(torch.cat(parts, dim=-1), "b r (h w) -> b r h w", h=sequence.image[0])


def competitive_map(logits: Tensor) -> Tensor:
    """Who wins each token: a softmax over references and a background, each map in its own deviations.

    Args:
        logits: (..., R, h, w); any scale, maps of different references need not share one.

    Returns:
        (..., R, h, w) in [0, 1]; what is missing to 1 is background, the constant 0 beside the z-scores.
    """
    centred = logits - logits.mean(dim=(-2, -1), keepdim=True)
    scores = centred / centred.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp_min(1e-6)
    background = torch.zeros_like(scores[..., :1, :, :])
    return torch.cat((scores, background), dim=-3).softmax(dim=-3)[..., :-1, :, :]


def otsu_mask(values: Tensor, bins: int = 256) -> Tensor:
    """The mask that splits a map's values best in two: Otsu's threshold (IEEE SMC 9, 1979).

    Args:
        values: (..., h, w).

    Returns:
        (..., h, w) float, 1 where the map is high; all 0 for a constant map.
    """
    flat = values.float().flatten(0, -3)
    masks = [_above(each, _otsu_threshold(each, bins)) for each in flat]
    return torch.stack(masks).reshape(values.shape)


def _above(values: Tensor, threshold: float | None) -> Tensor:
    return torch.zeros_like(values) if threshold is None else (values > threshold).float()


def _otsu_threshold(values: Tensor, bins: int) -> float | None:
    """The bin edge with the largest variance between the two classes."""
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return None
    counts = torch.histc(values.cpu(), bins, low, high).double()
    centres = torch.linspace(low, high, 2 * bins + 1, dtype=torch.float64)[1::2]
    below, sums = counts.cumsum(0)[:-1], (counts * centres).cumsum(0)
    above = counts.sum() - below
    apart = sums[:-1] / below.clamp_min(1) - (sums[-1] - sums[:-1]) / above.clamp_min(1)
    edge = int((below * above * apart.square()).argmax()) + 1
    return low + (high - low) * edge / bins


@dataclass(frozen=True, eq=False)
class RoutingMap:
    """What a sampler recorded: for each block the mean logit map over its steps.

    Attributes:
        blocks: (K, B, R, h, w) float32; K blocks, double ones first.
        slots: the slot of each of the R references.
        steps: model calls that were averaged.
    """

    blocks: Tensor
    slots: tuple[int, ...]
    steps: int

    def __post_init__(self) -> None:
        expect(self.blocks, "K B R h w", "routing maps", R=len(self.slots))

    @property
    def logits(self) -> Tensor:
        """(B, R, h, w) mean over all blocks, as the routing loss takes it (equation 3)."""
        return self.blocks.mean(dim=0)


class Recorder:
    """Running means of logit maps over the calls of one sampling run.

    A call's maps are gathered block by block in a list, then taken in at once: a call in which a block was skipped or
    run twice (block caches, skip-layer guidance) does not say which map is whose, and is left out.
    """

    def __init__(self, blocks: int) -> None:
        self.expected = blocks
        self.calls = 0
        self.left_out = 0
        self._mean: Tensor | None = None

    def take(self, maps: list[Tensor]) -> None:
        """One call's maps, (B, R, h, w) each."""
        if len(maps) != self.expected or (self._mean is not None and maps[0].shape != self._mean.shape[1:]):
            self.left_out += 1
            return
        now = torch.stack(maps).cpu()
        self.calls += 1
        self._mean = now if self._mean is None else self._mean + (now - self._mean) / self.calls

    def result(self, slots: tuple[int, ...]) -> RoutingMap | None:
        """What was recorded so far; None if nothing was."""
        return None if self._mean is None else RoutingMap(self._mean, slots, self.calls)
