"""Scaled dot-product attention with heads folded into the channels, as every host hands it to us."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + mask) V, by torch's fused kernels.

    Args:
        query: (B, N, C) with C = heads * d.
        key, value: (B or 1, M, C).
        heads: number of heads.
        mask: bool (True attends) or additive, broadcastable to (B, heads, N, M); no row may be all False.

    Returns:
        (B, N, C) in the query's dtype.
    """
    batch = query.shape[0]
    q = rearrange(query, "b n (h d) -> b h n d", h=heads)
    k = rearrange(key, "b m (h d) -> b h m d", h=heads).expand(batch, -1, -1, -1)
    v = rearrange(value, "b m (h d) -> b h m d", h=heads).expand(batch, -1, -1, -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(out, "b h n d -> b n (h d)")


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool mask as 0 / -inf, so that kernels need not convert it in every call."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
