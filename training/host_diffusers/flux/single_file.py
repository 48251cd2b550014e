"""A transformer's weights in one file, in Black Forest Labs' layout or in diffusers', under diffusers' names.

double_blocks.0.img_attn.qkv    ->  transformer_blocks.0.attn.to_q, to_k, to_v: thirds of its rows
single_blocks.0.linear1         ->  ...attn.to_q, to_k, to_v, proj_mlp on FLUX.1; one fused layer on FLUX.2
final_layer.adaLN_modulation.1  ->  norm_out.linear, shift and scale the other way round
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.checkpoint import SAFETENSORS, kind_of

_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_EMBEDDERS = {"in_layer": "linear_1", "out_layer": "linear_2"}
_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_MLP = {
    1: {"img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2", "txt_mlp.0": "ff_context.net.0.proj"}
    | {"txt_mlp.2": "ff_context.net.2"},
    2: {"img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out", "txt_mlp.0": "ff_context.linear_in"}
    | {"txt_mlp.2": "ff_context.linear_out"},
}
_SINGLE = {
    1: {
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear1_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "linear2": ("proj_out",),
        "modulation.lin": ("norm.linear",),
    },
    2: {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
}
_NORMS = {"norm.query_norm": ("attn.norm_q",), "norm.key_norm": ("attn.norm_k",)}
_TOP = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
_TOP |= {"final_layer.adaLN_modulation.1": "norm_out.linear"}
_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")
_FUSED_ROWS = {"linear1": (1, 1, 1, 4)}  # q, k, v and the MLP of FLUX.1's single blocks


def diffusers_modules(module: str, generation: int) -> tuple[str, ...]:
    """Name the layers of diffusers that a layer of Black Forest Labs' code is, in the order of its rows.

    Args:
        module: e.g. ``double_blocks.3.img_attn.qkv``.
        generation: 1 or 2.

    Raises:
        KeyError: no such layer.
    """
    match = _BLOCK.fullmatch(module)
    if match is None:
        if module in _TOP:
            return (_TOP[module],)
        part, _, layer = module.partition(".")
        if layer == "lin":  # Flux.2's shared modulations
            return (f"{part}.linear",)
        embedder = {"time_in": "timestep", "vector_in": "text", "guidance_in": "guidance"}[part]
        parent = "time_text_embed" if generation == 1 else "time_guidance_embed"
        return (f"{parent}.{embedder}_embedder.{_EMBEDDERS[layer]}",)
    kind, index, name = match.groups()
    if kind == "double":
        names = (_MLP[generation][name],) if name in _MLP[generation] else _DOUBLE[name]
        return tuple(f"transformer_blocks.{index}.{each}" for each in names)
    names = _SINGLE[generation].get(name) or _NORMS[name]
    return tuple(f"single_transformer_blocks.{index}.{each}" for each in names)


def split_rows(tensor: Tensor, module: str, parts: int) -> tuple[Tensor, ...]:
    """Cut a weight, a bias or an ``up`` matrix into the rows of its parts."""
    if parts == 1:
        return (tensor,)
    shares = _FUSED_ROWS["linear1"] if parts == 4 else (1, 1, 1)
    if tensor.shape[0] % sum(shares):
        raise ValueError(f"{module}: {tensor.shape[0]} rows are no q, k, v{' and MLP' if parts == 4 else ''}")
    unit = tensor.shape[0] // sum(shares)
    return tensor.split([unit * share for share in shares])


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a file's tensors, without the prefix of whole checkpoints.

    Raises:
        ValueError: not safetensors, or cut off.
    """
    if kind_of(path) != SAFETENSORS:
        raise ValueError(f"{path}: expected safetensors, got {kind_of(path) or 'another file'}")
    try:
        with safe_open(path, framework="pt") as file:
            return {_bare(key): tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); it may be truncated: download it again") from error


def read_transformer(path: Path, generation: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read the transformer's weights of a file under diffusers' names; 8-bit ones with their scales are made whole.

    Raises:
        ValueError: a tensor that no layer of a Flux has.
    """
    state: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        keys = {_bare(key): key for key in file.keys()}
        for name in keys:
            if (
                name.endswith((".scale_weight", ".scale_input", ".weight_scale", ".input_scale"))
                or name == "scaled_fp8"
            ):
                continue
            for target, tensor in _named(name, _whole(file.get_tensor, keys, name, dtype), generation):
                state[target] = tensor.contiguous()
    return state


def _whole(get: Callable[[str], Tensor], keys: dict[str, str], name: str, dtype: torch.dtype) -> Tensor:
    tensor, module = get(keys[name]), name.rpartition(".")[0]
    scale = next(
        (keys[f"{module}.{word}"] for word in ("scale_weight", "weight_scale") if f"{module}.{word}" in keys), ""
    )
    if scale and name.endswith(".weight"):
        return (tensor.float() * get(scale).float()).to(dtype)
    return tensor.to(dtype)


def _named(name: str, tensor: Tensor, generation: int) -> Iterator[tuple[str, Tensor]]:
    module, _, part = name.rpartition(".")
    if module.startswith(("transformer_blocks.", "single_transformer_blocks.", "x_embedder", "context_embedder")) or (
        module.startswith(("time_text_embed", "time_guidance_embed", "norm_out", "proj_out"))
        or module.endswith("modulation.linear")
        or module.endswith(("modulation_img.linear", "modulation_txt.linear"))
    ):
        yield name, tensor  # diffusers' own
        return
    try:
        targets = diffusers_modules(module, generation)
    except KeyError:
        raise ValueError(f"its tensor {name} belongs to no layer of FLUX.{generation}") from None
    if module == "final_layer.adaLN_modulation.1":
        tensor = torch.cat(tensor.chunk(2)[::-1])
    part = "weight" if part == "scale" else part
    for target, rows in zip(targets, split_rows(tensor, module, len(targets))):
        yield f"{target}.{part}", rows


def _bare(key: str) -> str:
    return next((key.removeprefix(prefix) for prefix in _PREFIXES if key.startswith(prefix)), key)
