"""The published way of the image attention, for comparison: everything again in every layer and every step.

Re-implemented from the description of MS-Diffusion's attention processor (arXiv:2406.07209): keys, values and masks
are made anew in each call, for the unconditional rows too, and the softmax is explicit.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

BLOCKED = -10000.0


def masks(boxes: Tensor, height: int, width: int, background: int, tokens: int) -> tuple[Tensor, Tensor]:
    """(B, S, 4) boxes to the additive bias (B, N, T0 + S*T) and the uncovered cells (B, N, 1)."""
    device, dtype = boxes.device, boxes.dtype
    rows = torch.arange(height, dtype=dtype).to(device)  # made on the CPU and moved, as published
    columns = torch.arange(width, dtype=dtype).to(device)
    x0, y0, x1, y1 = (boxes * boxes.new_tensor([width, height, width, height])).unbind(-1)
    inside_x = (columns >= x0.floor()[..., None]) & (columns < x1.ceil()[..., None])
    inside_y = (rows >= y0.floor()[..., None]) & (rows < y1.ceil()[..., None])
    inside = rearrange(inside_y[..., :, None] & inside_x[..., None, :], "b s h w -> b (h w) s")
    free = ~inside.any(dim=-1, keepdim=True)
    allowed = torch.cat((free.expand(-1, -1, background), inside.repeat_interleave(tokens, dim=-1)), dim=-1)
    return torch.where(allowed, 0.0, BLOCKED).to(dtype), free


def image_attention(
    query: Tensor,
    sequence: Tensor,
    boxes: Tensor,
    to_k: Tensor,
    to_v: Tensor,
    heads: int,
    grid: tuple[int, int],
    background: int,
    tokens: int,
) -> Tensor:
    """(B, N, C) queries of all rows and (B, T0 + S*T, D) tokens to (B, N, C)."""
    key, value = sequence @ to_k.T, sequence @ to_v.T
    q, k, v = (rearrange(x, "b n (h d) -> (b h) n d", h=heads) for x in (query, key, value))
    bias, free = masks(boxes, *grid, background, tokens)
    scores = torch.baddbmm(bias.repeat_interleave(heads, dim=0), q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    probabilities = scores.softmax(dim=-1)
    probabilities = torch.where(free.repeat_interleave(heads, dim=0), torch.zeros_like(probabilities), probabilities)
    return rearrange(probabilities @ v, "(b h) n d -> b n (h d)", h=heads)
