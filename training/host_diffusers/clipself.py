"""CLIP vision encoders of transformers and open_clip, taken apart for dense features (CLIPSelf arXiv:2310.01403)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from core.checkpoint import kind_of
from core.identity.local_tokens import ValuePath, VisionTower

from .opening import opened


@dataclass(frozen=True, eq=False)
class VisionEncoder:
    """A CLIP image encoder with its parts.

    Attributes:
        module: owns the weights.
        tower: its parts, for `core.identity.local_tokens.dense_features`.
        embed: (V, 3, s, s) normalised pixels to (V, E) image embeddings.
        project: (..., W) features after the last norm to (..., E).
        blocks: the transformer blocks, first to last.
        image_size: s of `embed`, pixels.
    """

    module: nn.Module
    tower: VisionTower
    embed: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], Tensor]
    blocks: nn.ModuleList
    image_size: int


def encoder_of_transformers(model: nn.Module) -> VisionEncoder:
    """Take a `CLIPVisionModelWithProjection` apart."""

    def run(layer: nn.Module, x: Tensor) -> Tensor:
        out = layer(x, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out  # a tuple before transformers 5

    tower = VisionTower.of(model.vision_model, run)
    return VisionEncoder(
        model,
        tower,
        lambda pixels: model(pixel_values=pixels).image_embeds,
        model.visual_projection,
        model.vision_model.encoder.layers,
        model.config.image_size,
    )


def encoder_of_open_clip(visual: nn.Module) -> VisionEncoder:
    """Take an open_clip `VisionTransformer` (a CLIP's `.visual`) apart."""
    layers, size = visual.transformer.resblocks, visual.image_size
    last = layers[-1]
    width = last.attn.embed_dim

    def value(x: Tensor) -> Tensor:
        bias = last.attn.in_proj_bias
        return F.linear(x, last.attn.in_proj_weight[2 * width :], None if bias is None else bias[2 * width :])

    tower = VisionTower(
        patches=visual.conv1,
        class_embedding=visual.class_embedding,
        positions=visual.positional_embedding,
        norm_before=visual.ln_pre,
        blocks=list(layers[:-1]),
        last=ValuePath(last.ln_1, value, last.attn.out_proj, last.ln_2, last.mlp),
        norm_after=visual.ln_post,
        patch_size=visual.conv1.kernel_size[0],
    )
    return VisionEncoder(
        visual, tower, visual, lambda x: x @ visual.proj, layers, size[0] if isinstance(size, tuple) else size
    )


def load_encoder(name: str, weights: Path | None = None) -> VisionEncoder:
    """Open an encoder by name.

    Args:
        name: a folder of transformers' CLIPVisionModelWithProjection, or an open_clip architecture such as ViT-bigG-14.
        weights: the open_clip architecture's checkpoint file.
    Raises:
        ValueError: no such model, or none with a vision transformer; an open_clip name without weights.
    """
    if Path(name).is_dir():
        from transformers import CLIPVisionModelWithProjection

        return encoder_of_transformers(
            opened(
                f"--model {name}",
                lambda: CLIPVisionModelWithProjection.from_pretrained(name, torch_dtype=torch.float32),
            )
        )
    if weights is None:
        raise ValueError(
            f"--model {name}: expected a folder of transformers' CLIP vision model, or an open_clip name with "
            "--weights FILE; got a name alone."
        )
    if weights.is_file() and kind_of(weights) is None:
        raise ValueError(f"--weights {weights}: not a file of tensors; expected a checkpoint of {name}.")
    visual = opened(f"--model {name}", lambda: _open_clip_tower(name, weights))
    if not hasattr(visual, "transformer") or not hasattr(visual, "conv1"):
        raise ValueError(
            f"--model {name}: its picture half is no vision transformer (ViT), so it has no blocks to train."
        )
    return encoder_of_open_clip(visual)


def _open_clip_tower(name: str, weights: Path) -> nn.Module:
    import open_clip

    return open_clip.create_model(name, pretrained=str(weights)).visual


def letterbox(picture: Tensor, side: int) -> Tensor:
    """Fit (3, h, w) into (3, side, side), centred on zeros."""
    _, height, width = picture.shape
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = F.interpolate(picture[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    left, top = (side - size[1]) // 2, (side - size[0]) // 2
    return F.pad(small, (left, side - size[1] - left, top, side - size[0] - top))


def dense_projected(encoder: VisionEncoder, features: Tensor) -> Tensor:
    """Project (V, W, h, w) dense features to (V, E, h, w) in the embedding's space, each of length 1."""
    rows = F.normalize(encoder.project(rearrange(features, "v c h w -> v h w c")), dim=-1)
    return rearrange(rows, "v h w c -> v c h w")
