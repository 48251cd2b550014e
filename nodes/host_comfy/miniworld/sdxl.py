"""The miniworld's models as ComfyUI's own classes: SDXL in architecture, small in size.

``models/miniworld`` is a diffusers folder; every size is read from its config files. Weights are used in float32: all
of them together are smaller than one layer of SDXL.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.diffusers_convert
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.checkpoint import read
from ..flux.detection import detect_config
from ..folders import MINIWORLD as FOLDER
from ..scene.recording_clip import with_text_positions
from .latents import format_of

STOCK_VOCABULARY = 49408
VAE_LEVELS = 4  # ComfyUI's conversion of diffusers' names counts levels from four


class Ratio:
    """A channel multiplier that is no whole number: 64 * Ratio(96, 64) is 96, where 64 * 1.5 would be 96.0."""

    def __init__(self, numerator: int, denominator: int) -> None:
        self.numerator, self.denominator = numerator, denominator

    def __mul__(self, channels: int) -> int:
        return channels * self.numerator // self.denominator

    __rmul__ = __mul__


class SpaceToDepth(nn.Module):
    """An autoencoder on blocks of pixels: its input is (B, 3*p*p, H/p, W/p)."""

    inner: Any  # ComfyUI's autoencoder

    def __init__(self, inner: nn.Module, side: int) -> None:
        super().__init__()
        self.inner, self.side = inner, side

    def encode(self, pixels: Tensor) -> Tensor:
        return self.inner.encode(F.pixel_unshuffle(pixels, self.side))

    def decode(self, latents: Tensor, **options) -> Tensor:
        return F.pixel_shuffle(self.inner.decode(latents, **options), self.side)


def missing_parts(folder: Path = FOLDER) -> list[str]:
    """Name the parts of the miniworld that are not in the folder."""
    parts = ("unet", "vae", "text_encoder", "text_encoder_2", "clip_vision", "local_clip_vision")
    missing = [part for part in parts if not list((folder / part).glob("*.safetensors"))]
    return missing + [
        name for name in ("identity.safetensors", "tokenizer/stock_ids.json") if not (folder / name).is_file()
    ]


def load_unet(folder: Path = FOLDER):
    """Load the MODEL."""
    # the config in ComfyUI's words, from which it knows diffusers' names
    config, state = read_part(folder / "unet")
    widths = config["block_out_channels"]
    head_width = widths[0] // config["attention_head_dim"][0]
    resnets = [config["layers_per_block"]] * len(widths)
    depth = list(config["transformer_layers_per_block"])
    layout = {
        "channel_mult": [Ratio(width, widths[0]) for width in widths],
        "num_res_blocks": resnets,
        "transformer_depth": [d for d, count in zip(depth, resnets) for _ in range(count)],
        "transformer_depth_output": [d for d, count in zip(depth, resnets) for _ in range(count + 1)],
        "transformer_depth_middle": depth[-1],
    }
    names = comfy.utils.unet_to_diffusers(layout)
    state = {names[key]: tensor for key, tensor in state.items()}
    unet = detect_config(state, {"channel_mult": layout["channel_mult"]})

    # ComfyUI keeps the head width on the family's class, not in the config; more than 4 channels mean inpainting to it
    family = type(
        "SDXL",
        (comfy.supported_models.SDXL,),
        {
            "unet_extra_config": {"num_heads": -1, "num_head_channels": head_width},
            "latent_format": partial(format_of, folder),
            "inpaint_model": lambda self: False,
        },
    )(unet)
    return build_model(family, state)


def build_model(family: comfy.supported_models_base.BASE, state: dict[str, Tensor]) -> comfy.model_patcher.ModelPatcher:
    """Build the MODEL of a family in float32 from its network's weights."""
    family.set_inference_dtype(torch.float32, None)
    base = family.get_model({}, device=torch.device("cpu"))
    base.diffusion_model.load_state_dict(state, strict=True)
    return comfy.model_patcher.ModelPatcher(
        base.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def load_clip(folder: Path = FOLDER) -> comfy.sd.CLIP:
    """Load the CLIP with the stock tokenizer; it records positions. Words the world has not share one embedding."""
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    parts = {"clip_l": read_part(folder / "text_encoder"), "clip_g": read_part(folder / "text_encoder_2")}
    options = {f"{name}_model_config": text_sizes(config) for name, (config, _) in parts.items()}
    clip = comfy.sd.CLIP(target, model_options=options | {"dtype": torch.float32})
    for name, (_, state) in parts.items():
        load_text(getattr(clip.cond_stage_model, name).transformer, state, folder)
    return with_text_positions(clip)


def load_text(transformer: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Load a text encoder's weights, its compact rows of embeddings spread over the stock vocabulary."""
    stock_ids = torch.tensor(json.loads((folder / "tokenizer" / "stock_ids.json").read_text(encoding="utf-8")))
    rows = state["text_model.embeddings.token_embedding.weight"]
    table = rows[-1:].expand(STOCK_VOCABULARY, -1).clone()
    table[stock_ids] = rows[:-1]
    whole = {
        "text_projection.weight": torch.eye(rows.shape[1]),
        **state,  # L has no projection: nothing reads it
        "text_model.embeddings.token_embedding.weight": table,
    }
    transformer.load_state_dict(whole, strict=True)


def text_sizes(config: dict) -> dict:
    """Select the sizes of a text encoder that ComfyUI takes."""
    names = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "hidden_act",
        "num_hidden_layers",
        "projection_dim",
    )
    return {name: config[name] for name in names}


def load_vae(folder: Path = FOLDER) -> comfy.sd.VAE:
    """Load the VAE: a stock KL autoencoder behind space-to-depth."""
    config, state = read_part(folder / "vae")
    widths = config["block_out_channels"]
    sizes = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [Ratio(width, widths[0]) for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    state = comfy.diffusers_convert.convert_vae_state_dict(state)
    state = {_level(key, VAE_LEVELS - len(widths)): tensor for key, tensor in state.items()}
    vae = comfy.sd.VAE(
        sd=state, config={"params": {"ddconfig": sizes, "embed_dim": config["latent_channels"]}}, dtype=torch.float32
    )
    vae.latent_channels = config["latent_channels"]
    vae.first_stage_model.load_state_dict(state, strict=True)
    side = round((config["in_channels"] / 3) ** 0.5)
    vae.first_stage_model = SpaceToDepth(vae.first_stage_model, side).eval()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.patcher.load_device, offload_device=vae.patcher.offload_device
    )
    return vae


def _level(key: str, missing: int) -> str:
    """Rename ``decoder.up.3`` of four levels to ``decoder.up.1`` of two."""
    parts = key.split(".")
    if parts[:2] == ["decoder", "up"]:
        parts[2] = str(int(parts[2]) - missing)
    return ".".join(parts)


def load_clip_vision(folder: Path) -> comfy.clip_vision.ClipVisionModel:
    """Load a CLIP_VISION from a transformers folder."""
    encoder = comfy.clip_vision.ClipVisionModel(str(folder / "config.json"))
    encoder.dtype = torch.float32
    encoder.model.float()
    _, state = read_part(folder)
    state.pop("vision_model.embeddings.position_ids", None)
    encoder.model.load_state_dict(state, strict=True)
    return encoder


def read_part(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    """Read the config and the weights of one part, in float32."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= {key: tensor.float() for key, tensor in read(file)[0].items()}
    return config, state
