"""The predicate attention loss: the relation's words should look at the pair, not at the background.

    L = mean over sites of ( mean of A outside the pair's region  -  mean of A inside )

A is the text cross-attention of the predicate's tokens. It is in DreamRelation's released code (weight 0.001, at every
noise level) and not in its paper (arXiv:2410.23280). Here every picture of a batch has its own value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import check_shape

_EPSILON = 1e-5  # as published: an empty region or a full one divides by this


def predicate_attention_loss(maps: Sequence[Tensor], region: Tensor) -> Tensor:
    """Compare the predicate's attention outside the pair's region with that inside.

    Args:
        maps: for each site (B, h, w), attention of the predicate's tokens, mean over tokens and heads.
        region: (B, H, W), 1 where a subject of the relation is, 0 elsewhere.

    Returns:
        (B,) float32; 0 for a picture whose maps are all zero (its prompt has no predicate).

    Raises:
        ValueError: no map, or another batch size.
    """
    batch = check_shape(region, "B H W", "pair region")["B"]
    if not maps:
        raise ValueError("predicate attention: expected the maps of at least one site, got none.")
    losses = []
    for attention in maps:
        check_shape(attention, "B h w", "predicate attention map", B=batch)
        inside = F.interpolate(region[:, None].float(), size=attention.shape[-2:], mode="nearest")[:, 0]  # (B, h, w)
        losses.append(_mean(attention, 1 - inside) - _mean(attention, inside))
    return torch.stack(losses).mean(dim=0)


def _mean(attention: Tensor, mask: Tensor) -> Tensor:
    return (attention.float() * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + _EPSILON)
