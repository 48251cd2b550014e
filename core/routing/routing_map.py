"""Which part of the picture a reference answers to (DreamO arXiv:2504.16915, equation 2).

    M_i = mean over its tokens of  Q_reference,i K_image^T / sqrt(d)

The mean over query tokens is linear, so it is taken first: a matrix-vector product instead of a matrix, and the
attention itself is left alone. Queries and keys are those that enter attention (after norm and rotary positions), heads
are averaged, all in float32. Two readings: ``logit`` as in the paper; ``mass``, how much of its attention a picture
token spends on the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..shapes import check_shape
from .call_layout import CallLayout


def logit_map(query: Tensor, key: Tensor, layout: CallLayout) -> Tensor:
    """Equation 2 at one block.

    Args:
        query: (B, H, S, d) as they enter attention; key: (B, G, S, d), H a multiple of G.
        layout: of S; its picture must be there.

    Returns:
        (B, R, h, w) float32, scaled dot products; no softmax. Frames are averaged, a reference without tokens is 0.
    """
    check_shape(query, "B H S d", "queries", S=layout.size)
    means = []
    for spans in layout.references:
        tokens = torch.cat([query[:, :, slice(*span)] for span in spans], dim=2)
        means.append(tokens.mean(dim=2, dtype=torch.float32))
    assert layout.image is not None, "a map is asked of attentions with the picture's tokens only"
    mean_queries = torch.stack(means, dim=2)  # (B, H, R, d)
    # average the heads that share a key head
    mean_queries = rearrange(mean_queries, "b (g n) r d -> b g n r d", g=key.shape[1]).mean(dim=2)
    image = key[:, :, slice(*layout.image)].float()  # (B, G, N, d)
    logits = (mean_queries @ image.transpose(-1, -2)).mean(dim=1) / math.sqrt(query.shape[-1])
    rows, columns = layout.grid
    return rearrange(logits, "b r (t h w) -> b r t h w", h=rows, w=columns).mean(dim=2)


def mass_map(query: Tensor, key: Tensor, layout: CallLayout, chunk: int = 1024, bias: Tensor | None = None) -> Tensor:
    """Compute the share of a picture token's attention that goes to each reference.

    Steered attention gives it without this (``steered_attention``); here it is by its definition.

    Args:
        query, key: (B, H, S, d) as they enter attention.
        layout: of S, pictures of one frame.
        chunk: picture tokens at a time; a whole attention matrix is never built.
        bias: (S, S) that attention adds to its logits, if any.

    Returns:
        (B, R, h, w) float32 in [0, 1].
    """
    check_shape(query, "B H S d", "queries", S=layout.size)
    assert layout.image is not None, "a map is asked of attentions with the picture's tokens only"
    first, last = layout.image
    parts = []
    for start in range(first, last, chunk):
        rows = slice(start, min(start + chunk, last))
        logits = query[:, :, rows].float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
        shares = (logits if bias is None else logits + bias[rows].float()).softmax(dim=-1)  # (B, H, n, S)
        of_spans = [[shares[..., slice(*span)].sum(dim=-1) for span in spans] for spans in layout.references]
        parts.append(torch.stack([torch.stack(sums).sum(dim=0).mean(dim=1) for sums in of_spans], dim=1))
    return rearrange(torch.cat(parts, dim=-1), "b r (h w) -> b r h w", h=layout.grid[0])


def in_picture(maps: Tensor, area: tuple[int, ...], picture: tuple[int, int]) -> Tensor:
    """Put the maps of a regional conditioning where its part of the picture is.

    Args:
        maps: (..., h, w) on the tokens of the part.
        area: the part's sizes, then its starts, in latent cells; of each the last two, height and width, count.
        picture: (H, W) of the whole latent.

    Returns:
        (..., rows, columns) on the tokens of the whole picture; outside of the part 0, or the lowest value if that is
        below 0.
    """
    axes = len(area) // 2
    spans = []
    for tokens, cells, start, whole in zip(maps.shape[-2:], area[axes - 2 : axes], area[-2:], picture):
        patch = max(1, round(cells / tokens))
        size = max(tokens, math.ceil(whole / patch))
        first = min(round(start / patch), size - tokens)
        spans.append((size, slice(first, first + tokens)))
    (rows, down), (columns, across) = spans
    lowest = maps.amin(dim=(-2, -1), keepdim=True).clamp_max(0)
    placed = lowest.expand(*maps.shape[:-2], rows, columns).clone()
    placed[..., down, across] = maps
    return placed


def otsu_mask(values: Tensor) -> Tensor:
    """Split a map's values in two by Otsu's threshold (IEEE SMC 9, 1979).

    Args:
        values: (..., h, w).

    Returns:
        (..., h, w) float, 1 where the map is high; all 0 for a constant map.
    """
    flat = values.float().flatten(0, -3)
    return torch.stack([_above(each, _otsu_threshold(each)) for each in flat]).reshape(values.shape)


def _above(values: Tensor, threshold: float | None) -> Tensor:
    return torch.zeros_like(values) if threshold is None else (values > threshold).float()


def _otsu_threshold(values: Tensor, bins: int = 256) -> float | None:
    """Return the bin edge with the largest variance between the two classes."""
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


KINDS = ("mass", "logit")


@dataclass(frozen=True, eq=False)
class RoutingMap:
    """Maps recorded from a sampler: for each block the mean over its steps.

    Attributes:
        blocks: (K, B, R, h, w) float32; K blocks in the order in which they run.
        slots: the number of each of the R references.
        steps: model calls that were averaged.
        kind: "logit", or "mass" where attention was steered, which computes it anyway.
    """

    blocks: Tensor
    slots: tuple[int, ...]
    steps: int
    kind: str = "logit"

    def __post_init__(self) -> None:
        check_shape(self.blocks, "K B R h w", "routing maps", R=len(self.slots))

    @property
    def maps(self) -> Tensor:
        """(B, R, h, w) mean over all blocks, as the routing loss takes it (equation 3)."""
        return self.blocks.mean(dim=0)


class Recorder:
    """Running means of maps over the calls of one sampling run.

    A call's maps are collected block by block in a list, then taken in at once: a call in which a block was skipped or
    run twice (block caches, skip-layer guidance) does not say which map is whose, and is left out.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: another run begins."""
        self.calls: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.left_out = 0
        self._means: dict[str, Tensor] = {}

    def take(self, maps: list[Tensor], expected: int, kind: str = "logit") -> None:
        """Add one call's maps, (B, R, h, w) each, of as many blocks as the model has."""
        mean = self._means.get(kind)
        if len(maps) != expected or (mean is not None and maps[0].shape != mean.shape[1:]):
            self.left_out += 1
            return
        now = torch.stack(maps).cpu()
        self.calls[kind] += 1
        self._means[kind] = now if mean is None else mean + (now - mean) / self.calls[kind]

    def result(self, slots: tuple[int, ...]) -> RoutingMap | None:
        """Return the maps so far, of the steered calls if there were any; None if nothing was recorded."""
        kind = next((kind for kind in KINDS if kind in self._means), None)
        return None if kind is None else RoutingMap(self._means[kind], slots, self.calls[kind], kind)


@dataclass(frozen=True, eq=False)
class Recording:
    """A routing map that is still to be filled: a node's output before a sampler has run.

    Attributes:
        recorder: filled by whichever sampler runs with it.
        slots: the number of each reference.
    """

    recorder: Recorder
    slots: tuple[int, ...]

    def read(self) -> RoutingMap | None:
        """Return the last run's maps so far; None if nothing has run."""
        return self.recorder.result(self.slots)
