"""MS-Diffusion's automatic layout: where the text attention puts a subject's name, the subject may act.

arXiv:2406.07209, section 3.4 (the code's "pseudo" mask). At each site the attention on the tokens of a name is
averaged over tokens, heads and the steps so far, stretched to [0, 1], and cut at 0.5. Until enough steps are seen
the boxes are used.

The published code adds the maps of all calls. Here a step counts once however often a sampler or a guider calls the
model in it; tiles are put into one map of the whole picture; and a site whose token grid changes in a run (Kohya's Deep
Shrink) continues with the resized map.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from ..scene import WHOLE_PICTURE, Box
from ..shapes import check_shape

THRESHOLD = 0.5
FIRST_STEP = 5  # steps needed before their maps are trusted, the current one included
_RANGE_FLOOR = 1e-5

Positions = tuple[int, ...]  # of a name's tokens in the text context; empty where it has none


def phrase_attention(query: Tensor, key: Tensor, heads: int, positions: tuple[Positions, ...]) -> Tensor:
    """Text attention on each subject's name, mean over its tokens and over heads.

    Args:
        query: (B, N, C).
        key: (B, M, C) of the text context.
        heads: number of attention heads.
        positions: for each subject the positions of its name's tokens.

    Returns:
        (B, S, N) float32; zeros for a subject without positions.
    """
    q = rearrange(query.float(), "b n (h d) -> b h n d", h=heads)
    k = rearrange(key.float(), "b m (h d) -> b h m d", h=heads)
    probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)  # (B, N, M)
    empty = torch.zeros(probabilities.shape[:2], device=query.device)
    maps = [probabilities[:, :, list(places)].mean(dim=-1) if places else empty for places in positions]
    return torch.stack(maps, dim=1)


def coverage_of(maps: Tensor) -> Tensor:
    """(..., S, N) attention to (..., S, N) bool: above the middle of each map's own range."""
    low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    return (maps - low) / (high - low + _RANGE_FLOOR) > THRESHOLD


@dataclass(eq=False)
class _WholeMap:
    """Running sums of one site's maps over the whole picture.

    Attributes:
        total: (B, S, H, W) sum of the maps.
        count: (H, W) number of steps that showed each cell.
        latest: (H, W) the last of these steps.
    """

    total: Tensor
    count: Tensor
    latest: Tensor
    steps: set[Hashable] = field(default_factory=set)

    @classmethod
    def empty(cls, maps: Tensor, height: int, width: int) -> _WholeMap:
        count = torch.zeros(height, width, device=maps.device)
        return cls(maps.new_zeros(*maps.shape[:2], height, width), count, torch.full_like(count, -1.0))

    def resized(self, height: int, width: int) -> _WholeMap:
        """Resample to another grid."""
        count = F.interpolate(self.count[None, None], size=(height, width), mode="nearest-exact")[0, 0]
        mean = F.interpolate(self.mean, size=(height, width), mode="bilinear", antialias=True)
        latest = F.interpolate(self.latest[None, None], size=(height, width), mode="nearest-exact")[0, 0]
        return _WholeMap(mean * count, count, latest, self.steps)

    @property
    def mean(self) -> Tensor:
        """(B, S, H, W)."""
        return self.total / self.count.clamp_min(1)


@dataclass(eq=False)
class AttentionRecord:
    """The attention maps of one sampling run so far; a new run starts with a new record.

    Attributes:
        first_step: steps needed before their maps replace the boxes.
    """

    first_step: int = FIRST_STEP
    _maps: dict[Hashable, _WholeMap] = field(default_factory=dict)

    def observe(self, where: Hashable, step: int, maps: Tensor, window: Box = WHOLE_PICTURE) -> Tensor | None:
        """Add the maps of one model call at one site; return the layout so far, or None while boxes are still used.

        Args:
            where: the site, and whatever else tells apart maps that must not be mixed.
            step: of the schedule, >= 0; of several calls in one step the first that shows a cell counts.
            maps: (B, S, h, w).
            window: the part of the picture they show.

        Returns:
            (B, S, h, w) bool or None.
        """
        check_shape(maps, "B S h w", "attention maps")
        height, width = maps.shape[-2:]
        grid = (
            max(height, round(height / (window.y1 - window.y0))),
            max(width, round(width / (window.x1 - window.x0))),
        )
        whole_map = self._maps.get(where)
        if whole_map is None:
            whole_map = _WholeMap.empty(maps, *grid)
        elif whole_map.count.shape != grid:
            whole_map = whole_map.resized(*grid)
        self._maps[where] = whole_map

        # a cell counts once per step: later calls of the same step add nothing to it
        top = min(round(window.y0 * grid[0]), grid[0] - height)
        left = min(round(window.x0 * grid[1]), grid[1] - width)
        cells = (..., slice(top, top + height), slice(left, left + width))
        first_in_step = (whole_map.latest[cells] != step).float()  # (h, w)
        whole_map.total[cells] += maps * first_in_step
        whole_map.count[cells] += first_in_step
        whole_map.latest[cells] = float(step)
        whole_map.steps.add(step)
        if len(whole_map.steps) < self.first_step:
            return None
        return coverage_of(whole_map.mean.flatten(2)).unflatten(-1, grid)[cells]
