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
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.checkpoint import SAFETENSORS, kind_of
from core.key_report import compare_keys, describe, shapes

from .errors import ModelFileErrors, one_line
from .schedule import schedule_of_keys
from .text import TextEncoders
from .tokenizer import find_tokenizer, open_tokenizer, tokenizer_files
from .unet import empty_unet
from .vision import rename_blocks

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_CLIP_L, _CLIP_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

SDXL_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "sample_size": 1024,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "scaling_factor": 0.13025,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "force_upcast": True,
}
_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
SDXL_CLIP_L = {
    **_TEXT,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "pad_token_id": 1,
}
SDXL_CLIP_G = {
    **_TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
    "pad_token_id": 1,
}
SDXL = {"unet": SDXL_UNET, "vae": SDXL_VAE, "clip_l": SDXL_CLIP_L, "clip_g": SDXL_CLIP_G}


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


def _keys_of(path: Path) -> tuple[set[str], int]:
    """List the keys of a whole SDXL checkpoint, and how many channels its UNet reads.

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
    return set(keys), keys[_FIRST][1] if _FIRST in keys else 4


def open_single_file(path: Path, tokenizer: str, sizes: dict[str, dict] = SDXL) -> dict[str, Any]:
    """Return the fields of ``Base`` for one checkpoint file.

    Args:
        path: a safetensors file, whatever its ending.
        tokenizer: folder of the CLIP tokenizer, or empty.
        sizes: the configs of its four parts; SDXL's.

    Raises:
        ModelFileErrors: not safetensors, not a whole SDXL checkpoint, or one of a schedule that is not supported.
    """
    keys, inputs = _keys_of(path)
    faults = []
    if inputs != 4:
        faults.append(
            f"models.base: {path}: its UNet reads {inputs} channels, not 4: an inpainting or editing model. "
            "Choose a plain base."
        )
    schedule = words = None
    try:
        schedule = schedule_of_keys(keys)
    except ValueError as error:
        faults.append(f"models.base: {path}: {error}")
    try:
        words = find_tokenizer(tokenizer)
        open_tokenizer(words, sizes["clip_l"]["vocab_size"])
    except ModelFileErrors as error:
        faults += error.messages
    if faults:
        raise ModelFileErrors(faults)
    return {
        "name": "sdxl" if sizes is SDXL else "miniworld",
        "schedule": schedule,
        "text_widths": (sizes["clip_l"]["hidden_size"], sizes["clip_g"]["hidden_size"]),
        "empty_unet": lambda: empty_unet(sizes["unet"]),
        "unet": lambda dtype: _with_diffusers(UNet2DConditionModel, path, _UNET, sizes["unet"], dtype),
        "vae": lambda: _with_diffusers(AutoencoderKL, path, _VAE, sizes["vae"], torch.float32),
        "text": lambda dtype: TextEncoders.of_tokenizer(
            CLIPTokenizer.from_pretrained(words, local_files_only=True),
            _build(CLIPTextModel, sizes["clip_l"], _part(path, _CLIP_L), dtype, path),
            _build(CLIPTextModelWithProjection, sizes["clip_g"], _clip_g(_part(path, _CLIP_G)), dtype, path),
        ),
        "files": (path, *tokenizer_files(words)),
        "tokens": lambda: TextEncoders.of_tokenizer(
            CLIPTokenizer.from_pretrained(words, local_files_only=True), None, None
        ),
    }


def _part(path: Path, prefix: str, keep: bool = False) -> dict[str, Tensor]:
    """Only the tensors of one part are read from the file."""
    with safe_open(path, framework="pt") as file:
        return {
            key if keep else key.removeprefix(prefix): file.get_tensor(key)
            for key in file.keys()
            if key.startswith(prefix) and "position_ids" not in key
        }


def _with_diffusers(kind: type, path: Path, prefix: str, config: dict, dtype: torch.dtype) -> nn.Module:
    """diffusers' own conversion of a part, with its config from here instead of the network."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        try:
            model = kind.from_single_file(
                _part(path, prefix, keep=True), config=folder, torch_dtype=dtype, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelFileErrors(
                f"models.base: {path}: what is under {prefix} is not SDXL's ({one_line(error)[:400]}). "
                "Choose an SDXL base."
            ) from error
    return model.eval().requires_grad_(False)


def _clip_g(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's text names to transformers'."""
    names = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "text_projection": "text_projection.weight",
    }
    renamed = {
        names[key]: tensor.T if key == "text_projection" else tensor for key, tensor in state.items() if key in names
    }  # what is missing is named by `compare_keys`
    prefix = "transformer.resblocks."
    blocks = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    return renamed | {f"text_model.encoder.layers.{key}": tensor for key, tensor in rename_blocks(blocks).items()}


def _build(kind: type, config: dict, state: dict[str, Tensor], dtype: torch.dtype, path: Path) -> nn.Module:
    """Return a text encoder from a state dict; transformers names its body with or without ``text_model.``."""
    model = kind(CLIPTextConfig(**config))
    wanted = model.state_dict()
    wrapped = any(key.startswith("text_model.") for key in wanted)
    state = {key if wrapped else key.removeprefix("text_model."): tensor for key, tensor in state.items()}
    try:
        compare_keys(shapes(state), shapes(wanted), path.name, f"the text encoder ({kind.__name__})")
    except ValueError as error:
        raise ModelFileErrors(f"models.base: {error}") from error
    model.load_state_dict(state)
    return model.to(dtype).eval().requires_grad_(False)
