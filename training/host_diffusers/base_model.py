"""The base model on disk, a diffusers folder or one SDXL checkpoint file, opened part by part when a part is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..common.errors import Faults
from ..diffusion.noise_schedule import NoiseSchedule
from .single_file import open_single_file
from .text import TextEncoders
from .tokenizer import find_tokenizer


@dataclass(frozen=True, eq=False)
class Base:
    """A base model whose parts are read from disk only when asked for.

    Attributes:
        name: ``sdxl`` or ``miniworld``, as relation files say it.
        schedule: its noise and its prediction.
        empty_unet: the UNet without weights, on the meta device.
        unet, vae, text: load the part in a precision, frozen. The VAE is float32 whatever is asked: SDXL's overflows.
        files: what it is made of, for fingerprints.
    """

    name: str
    schedule: NoiseSchedule
    empty_unet: Callable[[], nn.Module]
    unet: Callable[[torch.dtype], nn.Module]
    vae: Callable[[], nn.Module]
    text: Callable[[torch.dtype], TextEncoders]
    files: tuple[Path, ...]


def open_base(path: str | Path, tokenizer: str = "") -> Base:
    """Look at a base model without reading its weights.

    Args:
        path: a diffusers folder (``unet/``, ``vae/``, ``text_encoder/`` ...), or one SDXL checkpoint file.
        tokenizer: folder of the CLIP tokenizer; needed where neither the base nor a ComfyUI around has one.

    Raises:
        Faults: nothing there, parts missing, or of another family than SDXL.
    """
    path = Path(path)
    if path.is_file():
        return Base(**open_single_file(path, tokenizer))
    if not path.is_dir():
        raise Faults(f"models.base: {path} is neither a folder nor a file. Give an SDXL checkpoint (.safetensors) or a "
                     "diffusers folder.")
    missing = [part for part in ("unet", "vae", "text_encoder", "text_encoder_2")
               if not (path / part / "config.json").is_file()]
    if missing:
        raise Faults(f"models.base: {path} is not a whole diffusers folder of SDXL: {', '.join(missing)} missing.")
    config = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
    if config.get("addition_embed_type") != "text_time":
        raise Faults(f"models.base: {path}: expected SDXL's architecture (text and time conditioning), got a UNet with "
                     f"context width {config.get('cross_attention_dim')}. Choose an SDXL base.")
    words = find_tokenizer(tokenizer or (str(path / "tokenizer") if (path / "tokenizer").is_dir() else ""))
    width = config["cross_attention_dim"]
    return Base(
        name="sdxl" if width == 2048 else "miniworld",
        schedule=_schedule(path / "scheduler" / "scheduler_config.json"),
        empty_unet=lambda: _empty(config),
        unet=lambda dtype: _frozen(UNet2DConditionModel, path, "unet", dtype),
        vae=lambda: _frozen(AutoencoderKL, path, "vae", torch.float32),
        text=lambda dtype: TextEncoders.of_tokenizer(
            CLIPTokenizer.from_pretrained(words, local_files_only=True),
            _frozen(CLIPTextModel, path, "text_encoder", dtype),
            _frozen(CLIPTextModelWithProjection, path, "text_encoder_2", dtype)),
        files=tuple(sorted(path.glob("*/*.safetensors")) + sorted(path.glob("*/*.json"))),
    )


def _empty(config: dict) -> nn.Module:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


def _frozen(kind: type, path: Path, part: str, dtype: torch.dtype) -> nn.Module:
    """One part; half-precision files (``*.fp16.safetensors``) are taken where there are no others."""
    plain = [file for file in (path / part).glob("*.safetensors") if ".fp16." not in file.name]
    variant = None if plain or not list((path / part).glob("*.fp16.safetensors")) else "fp16"
    try:
        model = kind.from_pretrained(path, subfolder=part, torch_dtype=dtype, variant=variant, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise Faults(f"models.base: {path / part} cannot be loaded: {error}") from error
    return model.eval().requires_grad_(False)


def _schedule(path: Path) -> NoiseSchedule:
    """The noise schedule a folder tells; SDXL's where it tells none."""
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "FlowMatch" in told.get("_class_name", ""):
        return NoiseSchedule("flow")
    kinds = {"epsilon": "epsilon", "v_prediction": "v", "flow_prediction": "flow"}
    prediction = told.get("prediction_type", "epsilon")
    if prediction not in kinds:
        raise Faults(f"models.base: {path}: prediction_type '{prediction}' is not supported; expected one of "
                     f"{', '.join(kinds)}.")
    try:
        return NoiseSchedule.of_betas(kinds[prediction], told.get("beta_start", 0.00085), told.get("beta_end", 0.012),
                                      told.get("beta_schedule", "scaled_linear"))
    except ValueError as error:
        raise Faults(f"models.base: {path}: {error}") from error
