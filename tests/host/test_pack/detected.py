"""ComfyUI's model configs for tiny sizes, from its own detection: the fields differ between its versions.

Detection reads a checkpoint's names and shapes. Here it gets just the ones that it looks at, without values, and the
sizes that it takes for granted (Flux's heads and axes) are put right afterwards.
"""

from __future__ import annotations

import comfy.model_detection
import comfy.utils
import torch

Shapes = dict[str, tuple[int, ...]]


def unet_config(sizes: dict) -> dict:
    """ComfyUI's config of a model of these sizes: a UNet if they name `model_channels`, else a Flux."""
    shapes = _unet(sizes) if "model_channels" in sizes else _flux(sizes)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = comfy.model_detection.detect_unet_config(state, "")
    if config is None:
        raise ValueError(f"this ComfyUI's detection does not know a model with {', '.join(shapes)}")
    return config | sizes


def _flux(sizes: dict) -> Shapes:
    """Names and shapes of a Flux, by which detection knows it."""
    width, patch = sizes["hidden_size"], 2
    norm = comfy.utils.flux_to_diffusers({"depth": 1, "depth_single_blocks": 1, "hidden_size": width})[
        "transformer_blocks.0.attn.norm_k.weight"
    ].removeprefix("double_blocks.0.")
    shapes = {
        "img_in.weight": (width, sizes["in_channels"] * patch**2),
        "txt_in.weight": (width, sizes["context_in_dim"]),
        "vector_in.in_layer.weight": (width, sizes["vec_in_dim"]),
    }
    shapes |= {f"double_blocks.{block}.{norm}": (width // sizes["num_heads"],) for block in range(sizes["depth"])}
    shapes |= {f"single_blocks.{block}.linear2.weight": (width, 1) for block in range(sizes["depth_single_blocks"])}
    if sizes["guidance_embed"]:
        shapes["guidance_in.in_layer.weight"] = (width, 256)
    return shapes


def _unet(sizes: dict) -> Shapes:
    """Names and shapes of a UNet, by which detection knows it."""
    width, factors, resnets = sizes["model_channels"], sizes["channel_mult"], sizes["num_res_blocks"]
    shapes = {
        "input_blocks.0.0.weight": (width, sizes["in_channels"], 3, 3),
        "out.2.weight": (sizes["out_channels"], width, 3, 3),
        **_transformer("middle_block.1", width * factors[-1], sizes["transformer_depth_middle"], sizes),
    }
    if sizes["adm_in_channels"] is not None:
        shapes["label_emb.0.0.weight"] = (4 * width, sizes["adm_in_channels"])
    depths, number = iter(sizes["transformer_depth"]), 0
    for level, (factor, count) in enumerate(zip(factors, resnets, strict=True)):
        if level:
            number += 1
            shapes[f"input_blocks.{number}.0.op.weight"] = (width * factors[level - 1], 1, 3, 3)
        for depth in (next(depths) for _ in range(count)):
            number += 1
            shapes |= _resnet(f"input_blocks.{number}", width * factor)
            shapes |= _transformer(f"input_blocks.{number}.1", width * factor, depth, sizes)
    levels = [factor for factor, count in zip(factors, resnets, strict=True) for _ in range(count + 1)]
    for block, (factor, depth) in enumerate(zip(levels, sizes["transformer_depth_output"], strict=True)):
        shapes |= _resnet(f"output_blocks.{number - block}", width * factor)
        shapes |= _transformer(f"output_blocks.{number - block}.1", width * factor, depth, sizes)
    return shapes


def _resnet(block: str, width: int) -> Shapes:
    return {f"{block}.0.in_layers.0.weight": (width,), f"{block}.0.out_layers.3.weight": (width, width, 3, 3)}


def _transformer(place: str, width: int, depth: int, sizes: dict) -> Shapes:
    """A spatial transformer of `depth` blocks; none of depth 0."""
    if depth < 1:
        return {}
    linear = sizes["use_linear_in_transformer"]
    context = {f"{place}.transformer_blocks.{n}.attn2.to_k.weight": (width, sizes["context_dim"]) for n in range(depth)}
    return {f"{place}.proj_in.weight": (width, width) if linear else (width, width, 1, 1), **context}
