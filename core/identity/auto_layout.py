"""MS-Diffusion's automatic layout: where the text attention puts a subject's name, the subject may act.

arXiv:2406.07209, section 3.4 (the code's "pseudo" mask). At each site the attention on the tokens of a name is
averaged over tokens, heads and the steps so far, stretched to [0, 1], and cut at 0.5. Until enough steps are seen
the boxes are used.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor

THRESHOLD = 0.5
FIRST_STEP = 5  # maps needed before they are trusted, the current one included
_RANGE_FLOOR = 1e-5

Span = tuple[int, int]  # token positions [from, to) in the text context


def phrase_attention(query: Tensor, key: Tensor, heads: int, spans: tuple[Span | None, ...]) -> Tensor:
    """Text attention on each subject's name, mean over its tokens and over heads.

    Args:
        query: (B, N, C).
        key: (B, M, C) of the text context.
        heads: of the site.
        spans: for each subject its tokens; None where the prompt does not name it.

    Returns:
        (B, S, N) float32; zeros for a subject without a span.
    """
    q = rearrange(query.float(), "b n (h d) -> b h n d", h=heads)
    k = rearrange(key.float(), "b m (h d) -> b h m d", h=heads)
    probabilities = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)  # (B, N, M)
    empty = torch.zeros(probabilities.shape[:2], device=query.device)
    maps = [empty if span is None else probabilities[:, :, slice(*span)].mean(dim=-1) for span in spans]
    return torch.stack(maps, dim=1)


def coverage_of(maps: Tensor) -> Tensor:
    """(..., S, N) attention to (..., S, N) bool: above the middle of each map's own range."""
    low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    return (maps - low) / (high - low + _RANGE_FLOOR) > THRESHOLD


@dataclass(eq=False)
class AttentionRecord:
    """The attention seen so far in one sampling run; a new run starts with a new record.

    Attributes:
        spans: for each subject its tokens in the prompt.
        first_step: maps needed before they replace the boxes.
    """

    spans: tuple[Span | None, ...]
    first_step: int = FIRST_STEP
    _sums: dict[Hashable, tuple[Tensor, int]] = field(default_factory=dict)

    def observe(self, where: Hashable, maps: Tensor) -> Tensor | None:
        """Add one step's maps at one site; return the layout they make, or None while boxes are still used.

        Args:
            where: the site, and whatever else tells apart maps that must not be mixed.
            maps: (B, S, N).

        Returns:
            (B, S, N) bool or None.
        """
        total, steps = self._sums.get(where, (0, 0))
        self._sums[where] = (total, steps) = (total + maps, steps + 1)
        return coverage_of(total / steps) if steps >= self.first_step else None
