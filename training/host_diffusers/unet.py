"""Where a diffusers UNet has its text cross-attentions, and how large the token grid is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from core.cross_attention_layers import CrossAttentionLayer, UNetSpec


def unet_layout(unet: nn.Module) -> UNetSpec:
    """Return the layout of any UNet of SDXL's architecture, read from its config.

    Args:
        unet: a ``UNet2DConditionModel``, wide or tiny.

    Raises:
        ValueError: it has transformers that this layout does not describe (it is of another architecture).
    """
    config = unet.config
    levels = len(config.block_out_channels)
    resnets = _per_level(config.layers_per_block, levels)
    depths = _per_level(config.transformer_layers_per_block, levels)
    upwards = config.reverse_transformer_layers_per_block or tuple(reversed(depths))
    layout = UNetSpec(
        widths=tuple(config.block_out_channels),
        resnets=resnets,
        down=tuple(
            _depths("CrossAttn" in kind, depths[i], resnets[i]) for i, kind in enumerate(config.down_block_types)
        ),
        up=tuple(
            _depths("CrossAttn" in kind, upwards[i], resnets[-1 - i] + 1)
            for i, kind in enumerate(config.up_block_types)
        ),
        middle=_last(depths[-1]) if "CrossAttn" in (config.mid_block_type or "") else 0,
        context_width=_last(config.cross_attention_dim),
    )
    names = [name for name, module in unet.named_modules() if name.endswith("attn2") and isinstance(module, Attention)]
    expected = [site.diffusers for site in layout.sites()]
    if sorted(names) != sorted(expected):
        odd = sorted(set(names) ^ set(expected))
        raise ValueError(
            f"base model: expected a UNet of SDXL's architecture, got one with {len(names)} text "
            f"cross-attentions where its config tells {len(expected)}; first difference: {odd[0]}."
        )
    return layout


def unet_context(unet: nn.Module) -> int:
    """Return the width of the text context, 2048 on SDXL."""
    return _last(unet.config.cross_attention_dim)


def _per_level(value: int | Sequence, levels: int) -> tuple:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def _depths(has_transformers: bool, depth: int | Sequence[int], resnets: int) -> tuple[int, ...]:
    """List the depth of each residual block of a level; a nested list gives them one by one."""
    if not has_transformers:
        return (0,) * resnets
    return (depth,) * resnets if isinstance(depth, int) else tuple(depth)


def _last(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[-1]


def cross_attentions(unet: nn.Module) -> list[tuple[CrossAttentionLayer, Attention, int]]:
    """List every text cross-attention in the published order: (its site, its module, its level; 0 is the finest)."""
    levels = len(unet.config.block_out_channels)
    return [(site, unet.get_submodule(site.diffusers), _level(site, levels)) for site in unet_layout(unet).sites()]


def _level(site: CrossAttentionLayer, levels: int) -> int:
    block, number = site.diffusers.split(".")[:2]
    if block == "mid_block":
        return levels - 1
    return int(number) if block == "down_blocks" else levels - 1 - int(number)


def grid_of(latent_size: tuple[int, int], level: int) -> tuple[int, int]:
    """Compute the token grid (h, w) at a level: every level halves, rounding up (a convolution of stride 2)."""
    height, width = latent_size
    for _ in range(level):
        height, width = -(-height // 2), -(-width // 2)
    return height, width


def empty_unet(config: dict) -> nn.Module:
    """Return a UNet without weights, on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)
