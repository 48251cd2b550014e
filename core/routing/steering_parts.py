"""Split a steering's bias into rows that share a bias, and blocks of keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .call_layout import CallLayout, Span, Tokens, span_mask, tokens_of
from .reference_bias import HARD, Steering, picture_bias, shared_bias


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Queries with the same row of B.

    Attributes:
        rows: which queries.
        columns: the keys that are open to them; None: all.
        bias: (1, 1, 1, keys) on those, or None.
    """

    rows: Tokens
    columns: Tokens | None
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class Block:
    """Keys to which every query of the picture adds one number.

    Attributes:
        reference: index of the reference whose tokens these are.
        columns: which keys.
        rows: which of the picture's queries may read them, or None for all.
        bias: (rows,) the number that those add, or None for nothing.
    """

    reference: int
    columns: Tokens
    rows: Tensor | None
    bias: Tensor | None


def shared_rows(steering: Steering, layout: CallLayout, queries: Span) -> list[tuple[Tensor, Tensor | None]]:
    """Group queries by the row of B that they share: a mask of the queries, and their row."""
    picture = span_mask(layout.size, () if layout.image is None else (layout.image,))
    groups: list[tuple[Tensor, Tensor | None]] = []
    for rows, bias in shared_bias(steering, layout):
        rows = (rows & ~picture)[slice(*queries)]
        if not bool(rows.any()):
            continue
        bias = bias if bool(bias.any()) else None
        same = next((at for at, (_, other) in enumerate(groups) if _equal(other, bias)), None)
        if same is None:
            groups.append((rows, bias))
        else:
            groups[same] = (groups[same][0] | rows, bias)
    return groups


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def open_keys(rows: Tensor, bias: Tensor | None) -> SharedRows:
    """Leave closed keys out; the bias of the open ones becomes a mask of one row."""
    if bias is None:
        return SharedRows(tokens_of(rows), None, None)
    is_open = bias > -HARD
    open_bias = bias[is_open]
    columns = None if bool(is_open.all()) else tokens_of(is_open)
    return SharedRows(tokens_of(rows), columns, open_bias[None, None, None] if bool(open_bias.any()) else None)


def blocks_of(steering: Steering, layout: CallLayout) -> tuple[Block, ...]:
    """Return the keys of each reference, closed ones left out.

    Latents and copies are one block if B does not differ.
    """
    blocks = []
    for index, parts in enumerate(picture_bias(steering, layout)):
        for spans, bias in parts:
            is_open = bias > -HARD
            if not spans or not bool(is_open.any()):
                continue
            rows = None if bool(is_open.all()) else is_open.nonzero()[:, 0]
            open_bias = bias if rows is None else bias[rows]
            columns = tokens_of(span_mask(layout.size, spans))
            blocks.append(Block(index, columns, rows, open_bias if bool(open_bias.any()) else None))
    return tuple(blocks)
