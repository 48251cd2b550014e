"""Steered attention without a mask as large as the picture: few rows of the bias, or few columns of it.

The bias B of ``reference_bias`` is constant along one side almost everywhere:

    queries that share one row of B (the text; the tokens of one reference): plain attention over the keys that the row
        leaves open. The host's own attention runs it, unless the rest of the row is a mask.
    queries of the picture: B is constant in each block of keys (everything else; reference 1; reference 2; ...), so
        each block is attended to alone and the results are merged by their log-sum-exp (``lse_attention``):
            w_j = softmax_j(lse_j + b_j),   out = sum_j w_j out_j
        w_j is the share of attention that reference j gets, so the mass map comes with it.

A closed border leaves pairs of queries and keys out altogether, so it saves time, and its zeros are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from .call_layout import CallLayout, Span, Tokens, span_mask, tokens_of
from .lse_attention import attend_with_lse, prepare
from .reference_bias import Steering
from .steering_parts import Block, SharedRows, blocks_of, open_keys, shared_rows

Backend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # q, k, v, mask to (B, n, H d)


@dataclass(frozen=True, eq=False)
class SteeredAttention:
    """The replacement of plain attention in the attentions of one layout.

    Attributes:
        shared: all queries but the picture's.
        picture: the picture's queries; None in attentions without them.
        base: the keys that are no reference's.
        blocks: the references' keys.
        references: number of references.
    """

    shared: tuple[SharedRows, ...]
    picture: Tokens | None
    base: Tokens
    blocks: tuple[Block, ...]
    references: int

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        backend: Backend,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (B, H, S, d); key, value: (B, G, K, d), H a multiple of G.
            backend: plain attention, for what needs no log-sum-exp and no bias.
            mask: another node's additive mask, broadcastable to (B, H, S, K).
            scale: of the logits; None is d^-1/2.

        Returns:
            (B, H, S, d), and the share of the picture's attention that each reference gets, (B, R, N) float32, or None
            where the picture has no queries.
        """
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
        for part in self.shared:
            keys, values = (side if part.columns is None else pick(side, part.columns) for side in (key, value))
            rows, other = pick(query, part.rows), part_of(mask, part.rows, part.columns)
            if part.bias is None:
                attended = rearrange(backend(rows, keys, values, other), "b s (h d) -> b s h d", h=query.shape[1])
            else:  # a backend may drop masks without a word, as SageAttention 2 does
                bias = part.bias.to(query.dtype) if other is None else part.bias.to(query.dtype) + other
                attended = attend_with_lse(rows, keys, values, bias, scale)[0].transpose(1, 2)
            out[:, part.rows] = attended
        if self.picture is None:
            return out.transpose(1, 2), None
        merged, shares = self._merge(self.picture, query, key, value, mask, scale)
        out[:, self.picture] = merged.transpose(1, 2)
        return out.transpose(1, 2), shares

    def _merge(
        self, picture: Tokens, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
    ) -> tuple[Tensor, Tensor]:
        """Attend from the picture's queries to the base, then merge one block of a reference after another into it."""
        query = pick(query, picture)
        out, total = attend_with_lse(
            query, pick(key, self.base), pick(value, self.base), part_of(mask, picture, self.base), scale
        )
        sums = []
        for block in self.blocks:
            readers = query if block.rows is None else query.index_select(2, block.rows)
            block_mask = part_of(mask, picture, block.columns, block.rows)
            keys, values = pick(key, block.columns), pick(value, block.columns)
            block_out, lse = attend_with_lse(readers, keys, values, block_mask, scale)
            lse = lse if block.bias is None else lse + block.bias
            before = total if block.rows is None else total.index_select(2, block.rows)
            weight = torch.sigmoid(lse - before)[..., None].to(out.dtype)
            if block.rows is None:
                out, total = out.lerp_(block_out, weight), torch.logaddexp(total, lse)
            else:
                out.index_copy_(2, block.rows, out.index_select(2, block.rows).lerp_(block_out, weight))
                total = total.index_copy(2, block.rows, torch.logaddexp(before, lse))
            sums.append((block, lse))
        return out, self._shares(sums, total)

    def _shares(self, sums: list[tuple[Block, Tensor]], total: Tensor) -> Tensor:
        """(B, R, N): exp(lse_j - lse) of each reference, heads averaged."""
        shares = total.new_zeros(total.shape[0], self.references, total.shape[2])
        for block, lse in sums:
            rows = slice(None) if block.rows is None else block.rows
            whole = total if block.rows is None else total.index_select(2, block.rows)
            shares[:, block.reference, rows] += (lse - whole).exp().mean(dim=1)
        return shares


def pick(side: Tensor, tokens: Tokens) -> Tensor:
    """(B, H, n, d) of some tokens; a run of them is a view."""
    return side[:, :, tokens] if isinstance(tokens, slice) else side.index_select(2, tokens)


def part_of(mask: Tensor | None, rows: Tokens, columns: Tokens | None, within: Tensor | None = None) -> Tensor | None:
    """Another node's mask for some queries and keys (None: all), four axes; ``within`` picks among those queries."""
    if mask is None:
        return None
    part: Tensor = mask[:, None] if mask.ndim == 3 else mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))
    if part.shape[2] > 1:
        part = part[:, :, rows]
        part = part if within is None else part[:, :, within]
    return part if columns is None or part.shape[3] == 1 else part[..., columns]


def steered_attention(
    steering: Steering, layout: CallLayout, queries: Span, device: torch.device
) -> SteeredAttention | None:
    """Make the attention of one steering on one layout; None if it adds nothing there.

    Args:
        steering: settings of the bias.
        layout: of the keys.
        queries: which of the keys' tokens have queries: all, or without those that a cache has dropped.
    """
    prepare(device.type)
    shared = shared_rows(steering, layout, queries)
    blocks = blocks_of(steering, layout) if layout.image is not None else ()
    if all(bias is None for _, bias in shared) and all(block.bias is None and block.rows is None for block in blocks):
        return None
    picture = None if layout.image is None else slice(layout.image[0] - queries[0], layout.image[1] - queries[0])
    parts = tuple(open_keys(rows, bias) for rows, bias in shared)
    owned = span_mask(layout.size, *layout.own)
    attention = SteeredAttention(
        parts,
        picture,
        tokens_of(~owned),
        blocks,
        len(layout.references),
    )
    return _to_device(attention, device)


def _to_device(attention: SteeredAttention, device: torch.device) -> SteeredAttention:
    """Move its tensors to a device."""

    def move(value):
        return value.to(device) if isinstance(value, Tensor) else value

    shared = tuple(SharedRows(move(part.rows), move(part.columns), move(part.bias)) for part in attention.shared)
    blocks = tuple(
        Block(block.reference, move(block.columns), move(block.rows), move(block.bias)) for block in attention.blocks
    )
    return replace(attention, shared=shared, picture=move(attention.picture), base=move(attention.base), blocks=blocks)
