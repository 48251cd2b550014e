"""Local tokens: CLIP's dense feature map, pooled on a g x g grid (DreamRelation arXiv:2410.23280, equations 7-8).

The dense map is read as CLIPSelf (arXiv:2310.01403) reads it: in the last block attention is replaced by its value
path, so that a patch keeps what lies under it. Where we differ from the released DreamRelation code: every subject's
tokens come from its own photographs (the code samples the first photograph for all of them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from ..shapes import check_shape

# The dense map is read at this many times the encoder's own size: 896 pixels for CLIP's 224.
DENSE_SCALE = 4


@dataclass(frozen=True)
class ValuePath:
    """The last block without attention: x + out(value(norm1 x)), then + mlp(norm2 x)."""

    norm1: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]
    out: Callable[[Tensor], Tensor]
    norm2: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.out(self.value(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True)
class VisionTower:
    """The parts of a CLIP vision transformer, whichever library holds it.

    Attributes:
        patches: the patch convolution, (V, 3, s, s) to (V, W, h, w).
        class_embedding: (W,).
        positions: (1 + n*n, W), the class token's row first.
        norm_before, norm_after: the layer norms around the blocks.
        blocks: every block but the last, (V, 1+N, W) to the same.
        last: the last block, value path only.
        patch_size: side in pixels.
    """

    patches: Callable[[Tensor], Tensor]
    class_embedding: Tensor
    positions: Tensor
    norm_before: Callable[[Tensor], Tensor]
    blocks: Sequence[Callable[[Tensor], Tensor]]
    last: ValuePath
    norm_after: Callable[[Tensor], Tensor]
    patch_size: int

    @classmethod
    def of(cls, vision: Any, run: Callable[[nn.Module, Tensor], Tensor]) -> VisionTower:
        """Return the parts of a vision transformer with transformers' module names; ComfyUI's classes have them too.

        Args:
            vision: the module with ``embeddings``, ``pre_layrnorm``, ``encoder.layers``, ``post_layernorm``.
            run: calls one of its layers, as its library does.
        """
        embeddings, layers = vision.embeddings, vision.encoder.layers
        last = layers[-1]
        return cls(
            patches=embeddings.patch_embedding,
            class_embedding=embeddings.class_embedding,
            positions=embeddings.position_embedding.weight,
            norm_before=vision.pre_layrnorm,
            blocks=[partial(run, layer) for layer in layers[:-1]],
            last=ValuePath(
                last.layer_norm1, last.self_attn.v_proj, last.self_attn.out_proj, last.layer_norm2, last.mlp
            ),
            norm_after=vision.post_layernorm,
            patch_size=embeddings.patch_embedding.kernel_size[0],
        )


def rescale_positions(positions: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings of an n x n grid for an h x w grid: bicubic, corners not aligned, no antialiasing.

    Args:
        positions: (1 + n*n, W), the class token's row first; it is kept.

    Returns:
        (1 + h*w, W).
    """
    side = round((positions.shape[0] - 1) ** 0.5)
    if (height, width) == (side, side):
        return positions
    grid = rearrange(positions[1:], "(h w) c -> 1 c h w", h=side)
    grid = F.interpolate(grid.float(), size=(height, width), mode="bicubic", align_corners=False)
    return torch.cat((positions[:1], rearrange(grid, "1 c h w -> (h w) c").to(positions.dtype)))


def dense_features(tower: VisionTower, pixels: Tensor, progress: Callable[[], None] = lambda: None) -> Tensor:
    """CLIP's feature of every patch, each of length 1.

    Args:
        tower: the encoder's parts.
        pixels: (V, 3, s, s) normalised; s a multiple of the patch size, 896 for the published encoder.
        progress: called after every block.

    Returns:
        (V, W, s/p, s/p) in float32.
    """
    sizes = check_shape(pixels, "V 3 H W", "photographs")
    if sizes["H"] % tower.patch_size or sizes["W"] % tower.patch_size:
        raise ValueError(
            f"photographs: expected sides that are multiples of {tower.patch_size}, got {sizes['H']} x {sizes['W']}."
        )
    patches = tower.patches(pixels)
    height, width = patches.shape[-2:]
    x = rearrange(patches, "v c h w -> v (h w) c")
    first = tower.class_embedding.to(x).expand(x.shape[0], 1, -1)
    x = torch.cat((first, x), dim=1) + rescale_positions(tower.positions, height, width).to(x)  # (V, 1+N, W)
    x = tower.norm_before(x)
    for block in tower.blocks:
        x = block(x)
        progress()
    x = tower.norm_after(tower.last(x)[:, 1:])
    x = F.normalize(x.float(), dim=-1)
    return rearrange(x, "v (h w) c -> v c h w", h=height)


def pool(dense: Tensor, grid: int) -> Tensor:
    """Mean over the cells of a g x g grid, row-major; equal to RoIAlign there when g divides the map.

    Args:
        dense: (V, W, h, w).
        grid: g, at least 1 and at most h and w.

    Returns:
        (V, g*g, W); a mean of unit vectors, so its length is at most 1.
    """
    height, width = dense.shape[-2:]
    if not 1 <= grid <= min(height, width):
        raise ValueError(f"local grid: expected 1 to {min(height, width)} cells a side for this encoder, got {grid}.")
    if height % grid == 0 and width % grid == 0:  # bit for bit what the shipped weights were trained with
        return reduce(dense, "v c (gh h) (gw w) -> v (gh gw) c", "mean", gh=grid, gw=grid)
    return rearrange(F.adaptive_avg_pool2d(dense, grid), "v c h w -> v (h w) c")
