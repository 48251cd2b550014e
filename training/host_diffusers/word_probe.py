"""Where single words look: attention probabilities of a text cross-attention at chosen sites, head by head."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from einops import rearrange
from torch import Tensor, nn

from .unet import cross_attentions, grid_of


@dataclass(eq=False)
class WordProbe:
    """Asked as a `PredicateProbe` is, through ``CrossAttentionExtras(predicate=...)``.

    Attributes:
        positions: (B, K) where each word stands in the context; any value where there is none.
        sites: indices in the published order of those that answer.
        maps: filled by one forward pass: (B, heads, h * w, K) at each of them.
        open: closed after the forward pass, so that gradient checkpointing's second pass adds nothing.
    """

    positions: Tensor
    sites: frozenset[int]
    maps: list[Tensor] = field(default_factory=list)
    open: bool = True

    def listens(self, site: int, level: int) -> bool:
        """Whether a site answers."""
        return site in self.sites

    def ask(self, query: Tensor, key: Tensor, heads: int, level: int) -> None:
        """Record softmax(Q K^T / sqrt(d)) at the words for (B, N, C), (B, L, C)."""
        q = rearrange(query, "b n (h d) -> b h n d", h=heads).float()
        k = rearrange(key, "b l (h d) -> b h l d", h=heads).float()
        seen = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, H, N, L)
        index = self.positions[:, None, None, :].expand(-1, seen.shape[1], seen.shape[2], -1)
        looked = torch.gather(seen, -1, index)  # also in the second pass, which has to keep as many tensors
        if self.open:
            self.maps.append(looked)


def sites_of(unet: nn.Module, blocks: Collection[str], latent: tuple[int, int], most_cells: int) -> frozenset[int]:
    """Sites inside some blocks, of at most so many cells.

    Args:
        unet: of SD's or SDXL's architecture.
        blocks: transformer blocks by diffusers' name.
        latent: height and width of the latents.
        most_cells: of a site's grid; 1024 is 32 x 32.
    """
    found = set()
    for index, (site, _, level) in enumerate(cross_attentions(unet)):
        height, width = grid_of(latent, level)
        if site.diffusers.removesuffix(".attn2") in blocks and height * width <= most_cells:
            found.add(index)
    return frozenset(found)
