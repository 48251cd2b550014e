"""The base model on disk, a diffusers folder or one SDXL checkpoint file, opened part by part when a part is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from core.checkpoint import read_metadata
from core.relation.unet_bases import base_name
from core.user_files import read_json_object, visible_files

from ..diffusion.noise_schedule import NoiseSchedule
from .errors import ModelFileErrors, one_line
from .schedule import read_schedule
from .single_file import open_single_file
from .text import TextEncoders
from .tokenizer import open_tokenizer, tokenizer_files, tokenizer_of
from .unet import empty_unet, unet_layout

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_WEIGHTS = {".safetensors", ".bin"}


@dataclass(frozen=True, eq=False)
class BaseModelFiles:
    """A base model whose parts are read from disk only when they are loaded.

    Attributes:
        name: as files say it: `unet_bases.base_name`'s, or ``sd1``, ``sd2``, ``sd`` with one text encoder.
        schedule: its noise and its prediction.
        text_widths: of the two text encoders' vectors; side by side they are the UNet's context.
        empty_unet: the UNet without weights, on the meta device.
        unet, vae, text: load the part in a precision, frozen. The VAE is float32 always: SDXL's overflows.
        files: what it is made of, for fingerprints.
        vocabulary: tokens that its text encoders know.
        tokens: as `text`, without the encoders: ids and counts alone.
    """

    name: str
    schedule: NoiseSchedule
    text_widths: tuple[int, int]
    empty_unet: Callable[[], nn.Module]
    unet: Callable[[torch.dtype], nn.Module]
    vae: Callable[[], nn.Module]
    text: Callable[[torch.dtype], TextEncoders]
    files: tuple[Path, ...]
    vocabulary: int = 49408
    tokens: Callable[[], TextEncoders] | None = None


def open_base_model(path: str | Path, tokenizer: str = "") -> BaseModelFiles:
    """Look at a base model without reading its weights.

    Args:
        path: a diffusers folder (``unet/``, ``vae/``, ``text_encoder/`` ...), or one SDXL checkpoint file.
        tokenizer: folder of the CLIP tokenizer; needed where neither the base nor a ComfyUI around has one.

    Raises:
        ModelFileErrors: nothing there, parts missing, broken or not fitting each other, or of another family than SDXL.
    """
    # 1. a file, or a folder with all parts
    path = Path(path)
    if path.is_file():
        return BaseModelFiles(**open_single_file(path, tokenizer))
    if not path.is_dir():
        raise ModelFileErrors(
            f"models.base: {path} is neither a folder nor a file. Give a checkpoint "
            "(.safetensors) or a diffusers folder."
        )
    missing = [part for part in _PARTS if not (path / part / "config.json").is_file()]
    if missing:
        raise ModelFileErrors(
            f"models.base: {path} is not a whole diffusers folder of SDXL: {', '.join(missing)} missing."
        )
    # 2. every fault of its parts in one report
    configs, faults = _read_configs(path)
    if configs and (wrong := misfits_of(*configs.values())):
        faults.append(f"models.base: {path}: {wrong}")
    faults += _broken_weights(path)
    schedule = tokenizer_folder = None
    vocabulary = min(configs[part].get("vocab_size", 49408) for part in _PARTS[2:]) if configs else 2**31
    try:
        schedule = read_schedule(path / "scheduler" / "scheduler_config.json")
    except ValueError as error:
        faults.append(f"models.base: {one_line(error)}")
    try:
        tokenizer_folder = tokenizer_of(path, tokenizer)
        open_tokenizer(tokenizer_folder, vocabulary)
    except ModelFileErrors as error:
        faults += error.messages
    if faults:
        raise ModelFileErrors(faults)
    # 3. the parts, loaded when they are asked for
    config = configs["unet"]
    return BaseModelFiles(
        name=base_name(unet_layout(empty_unet(config))),
        schedule=schedule,
        text_widths=(configs["text_encoder"]["hidden_size"], configs["text_encoder_2"]["hidden_size"]),
        empty_unet=lambda: empty_unet(config),
        unet=lambda dtype: load_part(UNet2DConditionModel, path, "unet", dtype),
        vae=lambda: load_part(AutoencoderKL, path, "vae", torch.float32),
        text=lambda dtype: TextEncoders.of_folder(
            tokenizer_folder,
            load_part(CLIPTextModel, path, "text_encoder", dtype),
            load_part(CLIPTextModelWithProjection, path, "text_encoder_2", dtype),
        ),
        files=folder_files(path, _PARTS, tokenizer_folder),
        vocabulary=vocabulary,
        tokens=lambda: TextEncoders.of_folder(tokenizer_folder),
    )


def folder_files(path: Path, parts: Sequence[str], tokenizer_folder: Path) -> tuple[Path, ...]:
    """List what a base in a diffusers folder is made of, for fingerprints."""
    files = (file for part in (*parts, "scheduler") for file in visible_files(path / part, {".json", *_WEIGHTS}))
    return (*files, *tokenizer_files(tokenizer_folder))


def _read_configs(path: Path) -> tuple[dict[str, dict], list[str]]:
    """Read every part's config, all or none, and what is wrong with those that cannot be read."""
    configs, faults = {}, []
    for part in _PARTS:
        try:
            configs[part] = read_json_object(path / part / "config.json")
        except ValueError as error:
            faults.append(f"models.base: {error}")
    return ({} if faults else configs), faults


def misfits_of(unet: dict, vae: dict, clip_l: dict, clip_g: dict) -> str:
    """Return what keeps four configs from being one base of SDXL's architecture, or nothing."""
    context = unet.get("cross_attention_dim")
    if unet.get("addition_embed_type") != "text_time":
        return (
            f"expected SDXL's architecture (text and time conditioning), got a UNet with context width {context}. "
            "Choose an SDXL base."
        )
    if not all(isinstance(config.get("hidden_size"), int) for config in (clip_l, clip_g)):
        return "expected SDXL's two CLIP text encoders with a hidden_size, got others. Choose an SDXL base."
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        return (
            f"the UNet reads {unet.get('in_channels', 4)} channels, the VAE makes {vae.get('latent_channels', 4)}: "
            "an inpainting or editing model. Choose a plain base."
        )
    try:
        built = empty_unet(unet)
    except Exception as error:  # noqa: BLE001 diffusers raises whatever a wrong size leads to
        return f"unet/config.json describes no UNet that diffusers can build ({one_line(error)})."
    try:
        unet_layout(built)
    except ValueError as error:
        return one_line(error)
    return ""


def _broken_weights(path: Path) -> list[str]:
    """List files of weights that are cut off, and parts without any where others have theirs; only headers are read."""
    faults, without = [], []
    for part in _PARTS:
        files = visible_files(path / part, _WEIGHTS)
        without += [] if files else [part]
        for file in files:
            try:
                read_metadata(file)
            except ValueError as error:
                faults.append(f"models.base: {part}/{error}")
    if 0 < len(without) < len(_PARTS):
        faults.append(f"models.base: {path}: no weights in {', '.join(without)}. Download the folder again.")
    return faults


def load_part(kind: type, path: Path, part: str, dtype: torch.dtype) -> nn.Module:
    """Load one part, frozen; half-precision files (``*.fp16.safetensors``) are taken where there are no others."""
    plain = [file for file in (path / part).glob("*.safetensors") if ".fp16." not in file.name]
    variant = None if plain or not list((path / part).glob("*.fp16.safetensors")) else "fp16"
    try:
        model = kind.from_pretrained(path, subfolder=part, torch_dtype=dtype, variant=variant, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelFileErrors(f"models.base: {path / part} cannot be loaded: {one_line(error)}") from error
    return model.eval().requires_grad_(False)
