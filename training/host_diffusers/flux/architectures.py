"""Which Flux-class transformer a config or a file is, and the published sizes.

Flux.2's default config in diffusers is dev's, and its reader of single files takes every Flux.2 for dev; so sizes are
read from the tensors, and a model has the name of the published one of its shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from torch import nn

from core.relation.flux_bases import FLUX_BASES, FluxShape

_HEAD = 128
FLUX1 = {
    "_class_name": "FluxTransformer2DModel",
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": _HEAD,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": [16, 56, 56],
}
FLUX2_DEV = {
    "_class_name": "Flux2Transformer2DModel",
    "in_channels": 128,
    "num_layers": 8,
    "num_single_layers": 48,
    "attention_head_dim": _HEAD,
    "num_attention_heads": 48,
    "joint_attention_dim": 15360,
    "guidance_embeds": True,
    "axes_dims_rope": [32, 32, 32, 32],
}
_KLEIN = {**FLUX2_DEV, "guidance_embeds": False}
KLEIN_4B = {
    **_KLEIN,
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
}
KLEIN_9B = {**_KLEIN, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288}
PUBLISHED = {
    "flux1-dev": FLUX1,
    "kontext": FLUX1,
    "klein-4b": KLEIN_4B,
    "klein-9b": KLEIN_9B,
    "flux2-dev": FLUX2_DEV,
}
_CLASSES = {"FluxTransformer2DModel": FluxTransformer2DModel, "Flux2Transformer2DModel": Flux2Transformer2DModel}


def class_of(config: Mapping) -> type:
    """Find diffusers' class of a config.

    Raises:
        ValueError: of another family.
    """
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise ValueError(f"expected one of {', '.join(_CLASSES)}, got {name!r}")
    return _CLASSES[name]


def empty_transformer(config: Mapping) -> nn.Module:
    """Build the transformer without weights, on the meta device."""
    with torch.device("meta"):
        return class_of(config).from_config(dict(config))


def shape_of(config: Mapping) -> FluxShape:
    """Give generation, width and numbers of blocks of a config."""
    generation = 2 if class_of(config) is Flux2Transformer2DModel else 1
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return FluxShape(generation, width, config["num_layers"], config["num_single_layers"])


def name_of(config: Mapping, kontext: bool) -> str:
    """Find the key of `FLUX_BASES` of this shape; for other sizes flux1 or flux2."""
    shape = shape_of(config)
    names = [name for name, base in FLUX_BASES.items() if base.shape == shape]
    if "kontext" in names:
        return "kontext" if kontext else "flux1-dev"
    return names[0] if names else f"flux{shape.generation}"


def config_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Read a config from the tensors' shapes of a file in Black Forest Labs' layout, or in diffusers'.

    The widths of the rotary axes are in no tensor; they have the published proportions.

    Raises:
        ValueError: not a transformer of Flux.
    """
    ours = {"double": "transformer_blocks.", "single": "single_transformer_blocks.", "x": "x_embedder.weight"}
    ours |= {"text": "context_embedder.weight", "norm": "transformer_blocks.0.attn.norm_q.weight"}
    bfl = {"double": "double_blocks.", "single": "single_blocks.", "x": "img_in.weight", "text": "txt_in.weight"}
    bfl |= {"norm": "double_blocks.0.img_attn.norm.query_norm.scale"}
    names = next((names for names in (ours, bfl) if names["x"] in shapes and names["norm"] in shapes), None)
    if names is None:
        raise ValueError("no transformer of Flux in it: expected img_in.weight, or x_embedder.weight of diffusers")
    width, channels = shapes[names["x"]]
    head = shapes[names["norm"]][0]
    fused = any("single_stream_modulation" in key for key in shapes)
    blocks = {
        kind: len({key.split(".")[1] for key in shapes if key.startswith(names[kind])}) for kind in ("double", "single")
    }
    config = {
        "_class_name": "Flux2Transformer2DModel" if fused else "FluxTransformer2DModel",
        "in_channels": channels,
        "num_layers": blocks["double"],
        "num_single_layers": blocks["single"],
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes[names["text"]][1],
        "guidance_embeds": any("guidance_in" in key or "guidance_embedder" in key for key in shapes),
        "axes_dims_rope": [head // 4] * 4 if fused else [head // 8, head * 7 // 16, head * 7 // 16],
    }
    if not fused:
        pooled = next(key for key in ("vector_in.in_layer.weight", _POOLED) if key in shapes)
        config["pooled_projection_dim"] = shapes[pooled][1]
    return config


_POOLED = "time_text_embed.text_embedder.linear_1.weight"
