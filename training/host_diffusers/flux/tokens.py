"""Latents as Flux's tokens, and where the tokens of picture and references stand.

    FLUX.1 with DreamO  uxo      (0, Oy + y, Ox + x), each reference beyond the end of the one before, on the diagonal
    FLUX.1 Kontext      offset   (1, y, x), references beside each other: right of the ones before, or below them
    FLUX.1, FLUX.2      index    (i, y, x); FLUX.2 counts 10, 20, ... and has a fourth axis for the text's order

The rules are those of ComfyUI's ``reference_latents_method``. Order of tokens: text, picture, references. Ids are
float32: bfloat16 tells integers apart to 256 only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from core.routing.call_layout import Grid
from core.routing.token_layout import PATCH, positions

METHODS = ("uxo", "index", "offset")
_SCALE = 10  # of Flux.2's index


def pack(latents: Tensor, patch: int = PATCH) -> Tensor:
    """Turn (B, C, h, w) into tokens (B, h*w/p^2, p^2*C), Flux's order of channels."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpack(tokens: Tensor, grid: Grid, patch: int = PATCH) -> Tensor:
    """Undo `pack`."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=grid[0], p=patch, q=patch)


def grid_ids(grid: Grid, first: float = 0.0, top: int = 0, left: int = 0) -> Tensor:
    """Make (h*w, 3) positions: `first`, row, column."""
    rows, columns = torch.meshgrid(
        torch.arange(float(grid[0])) + top, torch.arange(float(grid[1])) + left, indexing="ij"
    )
    return torch.stack((torch.full(grid, first), rows, columns), dim=-1).flatten(0, 1)


def reference_ids(method: str, picture: Grid, references: Sequence[Grid], scale: int = 1) -> Tensor:
    """Make (tokens of all references, 3) positions.

    Args:
        method: one of METHODS.
        picture: token grid of the picture; only ``uxo`` begins beyond it.
        references: their token grids, in order.
        scale: step of ``index``.

    Raises:
        ValueError: another method.
    """
    if method == "uxo":
        return positions(picture, tuple(references))
    if method == "index":
        parts = [grid_ids(grid, float(scale * number)) for number, grid in enumerate(references, start=1)]
    elif method == "offset":
        parts, height, width = [], 0, 0
        for grid in references:
            right = grid[0] + height > grid[1] + width  # the shorter side of what stands grows
            top, left = (0, width) if right else (height, 0)
            parts.append(grid_ids(grid, 1.0, top, left))
            height, width = max(height, grid[0] + top), max(width, grid[1] + left)
    else:
        raise ValueError(f"reference method: expected one of {', '.join(METHODS)}, got {method!r}.")
    return torch.cat([torch.zeros(0, 3), *parts])


def four_axes(ids: Tensor) -> Tensor:
    """Extend (N, 3) to Flux.2's (N, 4): the fourth axis is the text's."""
    return torch.cat((ids, torch.zeros(len(ids), 1)), dim=-1)


def text_ids(length: int, axes: int) -> Tensor:
    """Make (L, axes) positions: zeros on Flux.1; on Flux.2 the words' order on the fourth axis."""
    ids = torch.zeros(length, axes)
    if axes == 4:
        ids[:, 3] = torch.arange(length)
    return ids


INDEX_SCALE = {3: 1, 4: _SCALE}  # by the number of axes
