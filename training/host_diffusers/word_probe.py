"""Where single words attend: attention probabilities of a text cross-attention at chosen sites, head by head."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from .unet import cross_attentions, grid_of


@dataclass(eq=False)
class WordProbe:
    """Records as a `PredicateProbe` does, through ``CrossAttentionExtras(predicate=...)``.

    Attributes:
        positions: (B, K) where each word stands in the context; any value where there is none.
        sites: indices in the published order of those that are recorded.
        maps: filled by one forward pass: (B, heads, h * w, K) at each of them.
        open: closed after the forward pass, so that gradient checkpointing's second pass adds nothing.
    """

    positions: Tensor
    sites: frozenset[int]
    maps: list[Tensor] = field(default_factory=list)
    open: bool = True

    def includes(self, site: int, level: int) -> bool:
        """Tell whether a site is recorded."""
        return site in self.sites

    def record(self, query: Tensor, key: Tensor, heads: int, level: int) -> None:
        """Record softmax(Q K^T / sqrt(d)) at the words for (B, N, C), (B, L, C)."""
        q = rearrange(query, "b n (h d) -> b h n d", h=heads).float()
        k = rearrange(key, "b l (h d) -> b h l d", h=heads).float()
        attention = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, H, N, L)
        index = self.positions[:, None, None, :].expand(-1, attention.shape[1], attention.shape[2], -1)
        of_words = torch.gather(attention, -1, index)  # also in the second pass, which has to keep as many tensors
        if self.open:
            self.maps.append(of_words)


def sites_of(unet: nn.Module, blocks: Collection[str], latent: tuple[int, int], most_cells: int) -> frozenset[int]:
    """Find the sites inside some blocks, of at most so many cells.

    Args:
        unet: of SD's or SDXL's architecture.
        blocks: transformer blocks by diffusers' name.
        latent: height and width of the latents.
        most_cells: of a site's grid; 1024 is 32 x 32.
    """
    sites = set()
    for index, (site, _, level) in enumerate(cross_attentions(unet)):
        height, width = grid_of(latent, level)
        if site.diffusers.removesuffix(".attn2") in blocks and height * width <= most_cells:
            sites.add(index)
    return frozenset(sites)
