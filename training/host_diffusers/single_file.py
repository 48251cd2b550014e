"""One SDXL checkpoint file in the layout ComfyUI reads, without any configuration from the network."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from core.checkpoint import SAFETENSORS, kind_of
from core.key_report import describe
from core.relation.unet_bases import UNET_BASES, base_name, base_of_checkpoint

from .checkpoint_configs import CHECKPOINTS
from .errors import ModelFileErrors, one_line
from .schedule import schedule_of_keys
from .text import TextEncoders
from .tokenizer import find_tokenizer, open_tokenizer, tokenizer_files
from .unet import empty_unet, unet_layout
from .vision import load_weights, rename_blocks

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_CLIP_L, _CLIP_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."


def keys_of(path: Path) -> dict[str, tuple[int, ...]]:
    """List keys and shapes of a checkpoint file; weights are not read.

    Raises:
        ModelFileErrors: not safetensors, or cut off.
    """
    if kind_of(path) != SAFETENSORS:
        raise ModelFileErrors(
            f"models.base: {path}: expected a safetensors checkpoint, got "
            f"{kind_of(path) or 'another file'}. Convert it first; pickles are not opened."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelFileErrors(
            f"models.base: {path}: cannot be read ({one_line(error)}). It may be truncated: download it again."
        ) from error


def _keys_of(path: Path) -> dict[str, tuple[int, ...]]:
    """List keys and shapes of a whole SDXL checkpoint.

    Raises:
        ModelFileErrors: not safetensors, cut off, or without one of its parts.
    """
    keys = keys_of(path)
    absent = [part for part in (_UNET, _VAE, _CLIP_L, _CLIP_G) if not any(key.startswith(part) for key in keys)]
    if absent:
        raise ModelFileErrors(
            f"models.base: {path}: expected a whole SDXL checkpoint; nothing under {', '.join(absent)}. "
            f"{describe(keys)}"
        )
    return keys


def _configs_for(keys: dict[str, tuple[int, ...]], path: Path) -> dict[str, dict]:
    """Return the configs of the base whose UNet is in a checkpoint.

    Raises:
        ModelFileErrors: the UNet is none of these bases'.
    """
    unet = {key.removeprefix(_UNET): shape for key, shape in keys.items() if key.startswith(_UNET)}
    name = base_of_checkpoint(unet)
    if name is not None and name in CHECKPOINTS:
        return CHECKPOINTS[name]
    count = sum(key.endswith(".attn2.to_k.weight") for key in unet)
    titles = ", ".join(UNET_BASES[name].title for name in CHECKPOINTS)
    raise ModelFileErrors(
        f"models.base: {path}: expected the UNet of {titles}, got one with {count} text cross-attentions at other "
        "places or of other widths. Choose such a checkpoint, or give a diffusers folder, which brings its configs."
    )


def open_single_file(path: Path, tokenizer: str, sizes: dict[str, dict] | None = None) -> dict[str, Any]:
    """Return the fields of `BaseModelFiles` for one checkpoint file.

    Args:
        path: a safetensors file, whatever its ending.
        tokenizer: folder of the CLIP tokenizer, or empty.
        sizes: the configs of its four parts; None: those of the base that its UNet belongs to.

    Raises:
        ModelFileErrors: not safetensors, not a whole checkpoint of a known base, a schedule that is not supported.
    """
    # 1. every fault of its parts in one report
    keys = _keys_of(path)
    inputs = keys.get(_FIRST, (0, 4))[1]
    faults: list[str] = []
    if inputs != 4:
        faults.append(
            f"models.base: {path}: its UNet reads {inputs} channels, not 4: an inpainting or editing model. "
            "Choose a plain base."
        )
    schedule = tokenizer_folder = None
    try:
        schedule = schedule_of_keys(keys)
    except ValueError as error:
        faults.append(f"models.base: {path}: {error}")
    try:
        sizes = sizes or _configs_for(keys, path)
        tokenizer_folder = find_tokenizer(tokenizer)
        open_tokenizer(tokenizer_folder, sizes["clip_l"]["vocab_size"])
    except ModelFileErrors as error:
        faults += error.messages
    if faults:
        raise ModelFileErrors(faults)
    # 2. the parts, read when they are asked for
    return {
        "name": base_name(unet_layout(empty_unet(sizes["unet"]))),
        "schedule": schedule,
        "text_widths": (sizes["clip_l"]["hidden_size"], sizes["clip_g"]["hidden_size"]),
        "empty_unet": lambda: empty_unet(sizes["unet"]),
        "unet": lambda dtype: convert_part(UNet2DConditionModel, path, _UNET, sizes["unet"], dtype),
        "vae": lambda: convert_part(AutoencoderKL, path, _VAE, sizes["vae"], torch.float32),
        "text": lambda dtype: TextEncoders.of_folder(
            tokenizer_folder,
            build_text_encoder(CLIPTextModel, sizes["clip_l"], read_part(path, _CLIP_L), dtype, path),
            build_text_encoder(
                CLIPTextModelWithProjection, sizes["clip_g"], rename_clip_g(read_part(path, _CLIP_G)), dtype, path
            ),
        ),
        "files": (path, *tokenizer_files(tokenizer_folder)),
        "tokens": lambda: TextEncoders.of_folder(tokenizer_folder),
    }


def read_part(path: Path, prefix: str, keep: bool = False) -> dict[str, Tensor]:
    """Read the tensors of one part of a file, and no others."""
    with safe_open(path, framework="pt") as file:
        return {
            key if keep else key.removeprefix(prefix): file.get_tensor(key)
            for key in file.keys()
            if key.startswith(prefix) and "position_ids" not in key
        }


def convert_part(kind: type, path: Path, prefix: str, config: dict, dtype: torch.dtype) -> nn.Module:
    """Load a part by diffusers' own conversion, with its config from here instead of the network."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            model = kind.from_single_file(
                read_part(path, prefix, keep=True), config=folder, torch_dtype=dtype, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelFileErrors(
                f"models.base: {path}: what is under {prefix} is not that of its architecture "
                f"({one_line(error)[:400]}). Choose another checkpoint."
            ) from error
    return model.eval().requires_grad_(False)


def rename_clip_g(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename open_clip's text tensors to transformers' names."""
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "text_projection": "text_projection.weight",
    }
    renamed = {
        names[key]: tensor.T if key == "text_projection" else tensor for key, tensor in state.items() if key in names
    }  # what is missing is named by `load_weights`
    prefix = "transformer.resblocks."
    blocks = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return renamed | {f"text_model.encoder.layers.{key}": tensor for key, tensor in rename_blocks(blocks).items()}


def build_text_encoder(kind: type, config: dict, state: dict[str, Tensor], dtype: torch.dtype, path: Path) -> nn.Module:
    """Make a text encoder of a state dict."""
    model = kind(CLIPTextConfig(**config))
    try:
        load_weights(model, state, "text_model.", path.name, f"the text encoder ({kind.__name__})")
    except ValueError as error:
        raise ModelFileErrors(f"models.base: {error}") from error
    return model.to(dtype).eval().requires_grad_(False)
