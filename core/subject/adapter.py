"""The gated adapter between self- and cross-attention (arXiv:2307.11410, equation 4; GLIGEN arXiv:2301.07093).

    x <- x + s * tanh(alpha_attn)  * SelfAttention( LN1([x ; W objects]) ) at the positions of x
    x <- x + s * tanh(alpha_dense) * FeedForward( LN2(x) )

Both gates begin at 0: the base model exactly. Names and numbers are those of diffusers' gated transformer block.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attend
from ..shapes import check_shape


class _SelfAttention(nn.Module):
    """Self-attention without biases but at the output."""

    def __init__(self, width: int, heads: int, head_width: int, ops: ModuleType, **factory) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_q = ops.Linear(width, inner, bias=False, **factory)
        self.to_k = ops.Linear(width, inner, bias=False, **factory)
        self.to_v = ops.Linear(width, inner, bias=False, **factory)
        self.to_out = nn.ModuleList([ops.Linear(inner, width, **factory)])

    def forward(self, x: Tensor, queries: int) -> Tensor:
        """Attend from the first `queries` positions to all."""
        out = attend(self.to_q(x[:, :queries]), self.to_k(x), self.to_v(x), self.heads)
        return self.to_out[0](out)


class _GEGLU(nn.Module):
    """value * gelu(gate), both from one projection."""

    def __init__(self, width: int, hidden: int, ops: ModuleType, **factory) -> None:
        super().__init__()
        self.proj = ops.Linear(width, 2 * hidden, **factory)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class _FeedForward(nn.Module):
    """GEGLU of four times the width; the slot between is the published dropout, which has no weights."""

    def __init__(self, width: int, ops: ModuleType, **factory) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [_GEGLU(width, 4 * width, ops, **factory), nn.Identity(), ops.Linear(4 * width, width, **factory)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class GatedAdapter(nn.Module):
    """One block's adapter ("fuser" in the released code)."""

    def __init__(
        self, width: int, context_width: int, heads: int, head_width: int, ops: ModuleType = nn, **factory
    ) -> None:
        """
        Args:
            width: C of the block.
            context_width: D of the object tokens.
            heads, head_width: of the self-attention; their product is C in every published block.
            ops: namespace of Linear and LayerNorm.
        """
        super().__init__()
        self.linear = ops.Linear(context_width, width, **factory)
        self.attn = _SelfAttention(width, heads, head_width, ops, **factory)
        self.ff = _FeedForward(width, ops, **factory)
        self.norm1 = ops.LayerNorm(width, **factory)
        self.norm2 = ops.LayerNorm(width, **factory)
        self.alpha_attn = nn.Parameter(torch.zeros((), **factory))
        self.alpha_dense = nn.Parameter(torch.zeros((), **factory))

    def forward(self, x: Tensor, objects: Tensor | tuple[Tensor, Tensor], scale: float | Tensor = 1.0) -> Tensor:
        """Let the positions of a grid read the objects.

        Args:
            x: (B, N, C), after the block's self-attention.
            objects: (B, M, D); or with a scale for each row (B, 1, 1), for hosts that hand on one value only.
            scale: s; 0 gives x itself. A tensor (B, 1, 1) scales each row of the batch.

        Returns:
            (B, N, C).
        """
        if isinstance(objects, tuple):
            objects, scale = objects
        batch = check_shape(x, "B N C", "hidden states")["B"]
        check_shape(objects, "B M D", "object tokens", B=batch)
        attn_gate = (self.alpha_attn.float().tanh() * scale).to(x.dtype)
        dense_gate = (self.alpha_dense.float().tanh() * scale).to(x.dtype)
        joined = self.norm1(torch.cat((x, self.linear(objects)), dim=1))  # (B, N + M, C)
        x = x + attn_gate * self.attn(joined, queries=x.shape[1])
        return x + dense_gate * self.ff(self.norm2(x))
