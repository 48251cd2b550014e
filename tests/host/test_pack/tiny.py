"""A whole SDXL, small enough for a test: random weights from a seed, built by ComfyUI's own classes.

`sdxl` keeps SDXL's layout (70 text cross-attentions, their depths and their order), only the widths shrink; `small` has
two levels and 8 of them, and is quick. Widths differ from each other, so that a tensor which took the wrong road does
not fit by luck.
"""

from __future__ import annotations

import json
import math
import os
import tempfile

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import torch

from .detected import unet_config

CLIP_L, CLIP_G = 24, 40
CONTEXT = CLIP_L + CLIP_G
VISION = 48
HEAD = 16
CPU = torch.device("cpu")
SDXL_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2, 4],
    "num_res_blocks": [2, 2, 2],
    "use_linear_in_transformer": True,
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": CONTEXT,
    "adm_in_channels": CLIP_G + 6 * 256,
}
SMALL_UNET = {
    **SDXL_UNET,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 2],
    "transformer_depth_output": [0, 0, 2, 2],
    "transformer_depth_middle": 2,
}
SD15_UNET = {
    **SDXL_UNET,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "use_linear_in_transformer": False,
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": CLIP_L,
    "adm_in_channels": None,
}
FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": CLIP_L,
    "context_in_dim": 32,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [8, 12, 12],
    "guidance_embed": True,
}
SIZES = {
    "sdxl": (comfy.supported_models.SDXL, SDXL_UNET),
    "small": (comfy.supported_models.SDXL, SMALL_UNET),
    "sd15": (comfy.supported_models.SD15, SD15_UNET),
    "flux": (comfy.supported_models.Flux, FLUX),
}


def fill(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draw every parameter from `seed`: matrices keep the variance of what goes through them, norms stay near 1."""
    generator = None
    for name, tensor in sorted(module.named_parameters()):
        tensor.requires_grad_(False)
        generator = generator or torch.Generator(tensor.device).manual_seed(seed)
        noise = torch.randn(tensor.shape, generator=generator, device=tensor.device)
        if tensor.ndim >= 2:
            noise = noise / math.sqrt(tensor[0].numel())
        elif name.endswith("bias"):
            noise = 0.1 * noise
        else:  # a norm's gains: `weight`, or `scale` in older Flux
            noise = 1 + 0.1 * noise
        tensor.data.copy_(noise)
    return module.eval()


def _config(family: type, sizes: dict, head: int = HEAD) -> comfy.supported_models_base.BASE:
    """ComfyUI's model config of `family` with these sizes; a family fixes its head width on the class."""
    extra = {"unet_extra_config": {"num_heads": -1, "num_head_channels": head}} if "model_channels" in sizes else {}
    return type(family.__name__, (family,), extra)(unet_config(sizes))


def model(
    kind: str = "sdxl",
    seed: int = 1,
    unet: dict | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    head: int = HEAD,
) -> comfy.model_patcher.ModelPatcher:
    """MODEL of a family, a key of SIZES, with random weights in `dtype`; `unet` replaces the sizes."""
    family, sizes = SIZES[kind]
    return _loaded(_config(family, unet or sizes, head), seed, dtype, device)


def model_of(
    family: type, sizes: dict, seed: int = 1, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> comfy.model_patcher.ModelPatcher:
    """MODEL of any class of comfy.supported_models; its config says exactly these sizes."""
    return _loaded(family({**family.unet_config, **sizes}), seed, dtype, device)


def _loaded(
    config: comfy.supported_models_base.BASE, seed: int, dtype: torch.dtype, device: torch.device
) -> comfy.model_patcher.ModelPatcher:
    """Made and filled where it will be used; a processor computes in float32, a GPU in the weights' own precision."""
    own = dtype == torch.float32 or device.type == "cuda"
    config.set_inference_dtype(dtype, None if own else torch.float32)
    base = config.get_model({}, device=device)
    fill(base.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(
        base,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def _text_config(width: int, heads: int, layers: int, activation: str) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": heads,
        "hidden_act": activation,
        "num_hidden_layers": layers,
        "projection_dim": width,
    }


def clip(kind: str = "sdxl", seed: int = 2) -> comfy.sd.CLIP:
    """CLIP with the stock tokenizers: SDXL's pair of text encoders, or the single one of `sd15` or the `refiner`."""
    classes = {
        "sdxl": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
        "refiner": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLRefinerClipModel),
        "sd15": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
    }
    options = {
        "clip_l_model_config": _text_config(CLIP_L, 4, 3, "quick_gelu"),
        "clip_g_model_config": _text_config(CLIP_G, 5, 3, "gelu"),
        "dtype": torch.float32,
    }
    result = comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(*classes[kind]), model_options=options)
    fill(result.cond_stage_model, seed)
    return result


def vae(seed: int = 3) -> comfy.sd.VAE:
    """VAE: factor 8, 4 channels, one 32-wide block a level."""
    widths = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    network = comfy.sd.AutoencoderKL(ddconfig=widths, embed_dim=4)
    fill(network, seed)
    return comfy.sd.VAE(
        sd=network.state_dict(), config={"params": {"ddconfig": widths, "embed_dim": 4}}, dtype=torch.float32
    )


def clip_vision(seed: int = 4, width: int = VISION, image_size: int = 28) -> comfy.clip_vision.ClipVisionModel:
    """CLIP_VISION: patch 14 as bigG. ComfyUI's own loader cannot read a tiny file (it knows sizes by layer count)."""
    config = {
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "hidden_size": width,
        "image_size": image_size,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_channels": 3,
        "num_hidden_layers": 3,
        "patch_size": 14,
        "projection_dim": 20,
    }
    handle, path = tempfile.mkstemp(suffix=".json")
    with os.fdopen(handle, "w") as file:
        json.dump(config, file)
    encoder = comfy.clip_vision.ClipVisionModel(path)
    os.unlink(path)
    encoder.dtype = torch.float32
    fill(encoder.model.float(), seed)
    return encoder


def controlnet(kind: str = "sdxl", seed: int = 5) -> comfy.controlnet.ControlNet:
    """CONTROL_NET for `model(kind)`: its encoder half with a hint tower."""
    config = unet_config(SIZES[kind][1])
    config |= {"hint_channels": 3, "num_heads": -1, "num_head_channels": HEAD, "dtype": torch.float32}
    for decoder_only in ("out_channels", "transformer_depth_output"):
        config.pop(decoder_only)
    network = comfy.cldm.cldm.ControlNet(**config, operations=comfy.ops.manual_cast, device=torch.device("cpu"))
    return comfy.controlnet.ControlNet(
        fill(network, seed),
        load_device=comfy.model_management.get_torch_device(),
    )
