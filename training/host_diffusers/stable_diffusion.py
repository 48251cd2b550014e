"""A base of Stable Diffusion's architecture with one text encoder (SD 1, SD 2), a diffusers folder or one SD 2 file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from core.checkpoint import read_metadata
from core.user_files import read_json_object, visible_files

from ..diffusion.noise_schedule import NoiseSchedule
from .base_model import BaseModelFiles, folder_files, load_part
from .checkpoint_configs import SDXL_VAE
from .errors import ModelFileErrors, one_line
from .schedule import read_schedule
from .single_file import build_text_encoder, convert_part, keys_of, read_part, rename_clip_g
from .text import TextEncoders
from .tokenizer import find_tokenizer, open_tokenizer, tokenizer_files, tokenizer_of
from .unet import empty_unet

_PARTS = ("unet", "vae", "text_encoder")
_UNET, _VAE, _CLIP_H = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
# SD 2's files do not say what they predict; ComfyUI tells v by the spread of one bias, and so do we
_TELLS_V, _SPREAD = f"{_UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09
NAMES = {768: "sd1", 1024: "sd2"}  # by the width of the context
SD2_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SD2_VAE = {**SDXL_VAE, "sample_size": 512, "scaling_factor": 0.18215, "force_upcast": False}
# diffusers' SD 2 keeps 23 of the encoder's 24 layers, with the final norm behind them
SD2_TEXT = {
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
    "pad_token_id": 0,
}
SD2 = {"unet": SD2_UNET, "vae": SD2_VAE, "text": SD2_TEXT}


def is_stable_diffusion(path: Path) -> bool:
    """Tell whether a folder or file has the parts of a base with one text encoder; nothing is checked."""
    if path.is_dir():
        return (path / "text_encoder").is_dir() and not (path / "text_encoder_2").is_dir()
    try:
        return path.is_file() and any(key.startswith(_CLIP_H) for key in keys_of(path))
    except ModelFileErrors:
        return False


def open_stable_diffusion(path: Path, tokenizer: str = "", sizes: dict[str, dict] = SD2) -> BaseModelFiles:
    """Look at a base without reading its weights; its second text width is 0.

    Args:
        path: a diffusers folder, or a checkpoint file of SD 2 as ComfyUI reads it.
        tokenizer: folder of the CLIP tokenizer, or empty.
        sizes: of a file's parts.

    Raises:
        ModelFileErrors: missing, broken or misfitting parts.
    """
    fields = _folder(path, tokenizer) if path.is_dir() else _file(path, tokenizer, sizes)
    return BaseModelFiles(**fields)


def _folder(path: Path, tokenizer: str) -> dict[str, Any]:
    # 1. every fault of its parts in one report
    faults, configs = [], {}
    for part in _PARTS:
        try:
            configs[part] = read_json_object(path / part / "config.json")
            for file in visible_files(path / part, {".safetensors", ".bin"}):
                read_metadata(file)  # a file that is cut off is named here
        except ValueError as error:
            faults.append(f"models.base: {part}: {one_line(error)}")
    schedule = tokenizer_folder = None
    try:
        schedule = read_schedule(path / "scheduler" / "scheduler_config.json")
    except ValueError as error:
        faults.append(f"models.base: {one_line(error)}")
    text = configs.get("text_encoder", {})
    try:
        tokenizer_folder = tokenizer_of(path, tokenizer)
        open_tokenizer(tokenizer_folder, text.get("vocab_size", 2**31))
    except ModelFileErrors as error:
        faults += error.messages
    if len(configs) == len(_PARTS):
        faults += [f"models.base: {path}: {fault}" for fault in _misfits(*configs.values())]
    if faults:
        raise ModelFileErrors(faults)
    # 2. the parts, loaded when they are asked for
    return {
        **_common(configs["unet"], text, schedule, tokenizer_folder),
        "unet": lambda dtype: load_part(UNet2DConditionModel, path, "unet", dtype),
        "vae": lambda: load_part(AutoencoderKL, path, "vae", torch.float32),
        "text": lambda dtype: _text(
            tokenizer_folder, load_part(CLIPTextModel, path, "text_encoder", dtype), text["hidden_size"]
        ),
        "files": folder_files(path, _PARTS, tokenizer_folder),
    }


def _file(path: Path, tokenizer: str, sizes: dict[str, dict]) -> dict[str, Any]:
    keys, faults, tokenizer_folder = keys_of(path), [], None
    absent = [part for part in (_UNET, _VAE, _CLIP_H) if not any(key.startswith(part) for key in keys)]
    if absent:
        faults.append(f"models.base: {path}: expected a whole SD 2 checkpoint; nothing under {', '.join(absent)}.")
    inputs = keys.get(_FIRST, (0, 4))[1]
    if inputs != 4:
        faults.append(
            f"models.base: {path}: its UNet reads {inputs} channels, not 4: an inpainting or editing model. "
            "Choose a plain base."
        )
    try:
        tokenizer_folder = find_tokenizer(tokenizer)
        open_tokenizer(tokenizer_folder, sizes["text"]["vocab_size"])
    except ModelFileErrors as error:
        faults += error.messages
    if faults:
        raise ModelFileErrors(faults)
    layers = sizes["text"]["num_hidden_layers"]
    return {
        **_common(
            sizes["unet"],
            sizes["text"],
            NoiseSchedule.of_betas(_prediction(path, keys)),
            tokenizer_folder,
        ),
        "unet": lambda dtype: convert_part(UNet2DConditionModel, path, _UNET, sizes["unet"], dtype),
        "vae": lambda: convert_part(AutoencoderKL, path, _VAE, sizes["vae"], torch.float32),
        "text": lambda dtype: _text(
            tokenizer_folder,
            build_text_encoder(
                CLIPTextModel, sizes["text"], _first_layers(read_part(path, _CLIP_H), layers), dtype, path
            ),
            sizes["text"]["hidden_size"],
        ),
        "files": (path, *tokenizer_files(tokenizer_folder)),
    }


def _prediction(path: Path, keys: Collection[str]) -> str:
    """Tell what an SD 2 file predicts, v or epsilon, as ComfyUI does that will draw with it."""
    bias = read_part(path, _TELLS_V, keep=True).get(_TELLS_V) if _TELLS_V in keys else None
    spread = 0.0 if bias is None else float(bias.float().std(correction=0))
    return "v" if "v_pred" in keys or spread > _SPREAD else "epsilon"


def _common(unet: dict, text: dict, schedule: NoiseSchedule, tokenizer_folder: Path) -> dict[str, Any]:
    return {
        "name": NAMES.get(unet["cross_attention_dim"], "sd"),
        "schedule": schedule,
        "text_widths": (text["hidden_size"], 0),
        "empty_unet": lambda: empty_unet(unet),
        "vocabulary": text.get("vocab_size", 49408),
        "tokens": lambda: _text(tokenizer_folder, None, text["hidden_size"]),
    }


def _misfits(unet: dict, vae: dict, text: dict) -> list[str]:
    context, width = unet.get("cross_attention_dim"), text.get("hidden_size")
    faults = []
    if unet.get("addition_embed_type"):
        faults.append(f"a UNet with {unet['addition_embed_type']} conditioning needs two text encoders, got one.")
    if not isinstance(width, int) or context != width:
        faults.append(f"its text encoder is {width} wide, its UNet reads {context}: parts of different bases.")
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        faults.append(
            f"the UNet reads {unet.get('in_channels', 4)} channels, the VAE makes {vae.get('latent_channels', 4)}: "
            "an inpainting or editing model. Choose a plain base."
        )
    return faults


def _text(tokenizer_folder: Path, encoder: nn.Module | None, width: int) -> TextEncoders:
    """Pad as SD 2 pads, or as the tokenizer's own files say."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    pad = 0 if width == SD2_TEXT["hidden_size"] else tokenizer.pad_token_id
    plain = TextEncoders.of_tokenizer(tokenizer, encoder, None)
    return replace(plain, ids=lambda texts, _: plain.ids(texts, pad))


def _first_layers(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Name an open_clip text encoder's first layers as transformers does, without its projection."""
    prefix = "text_model.encoder.layers."
    return {
        key: tensor
        for key, tensor in rename_clip_g(state).items()
        if key != "text_projection.weight"
        and not (key.startswith(prefix) and int(key.removeprefix(prefix).split(".")[0]) >= layers)
    }
