"""The miniworld's Flux as ComfyUI's own classes, knowing DreamO: what Load DreamO makes of FLUX.1-dev, in small.

``models/miniworld/flux`` has a diffusers transformer and DreamO's tables. Text comes from the miniworld's CLIP-G alone,
its states where Flux has T5's, its summary where Flux has CLIP-L's; latents are the miniworld's VAE's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import torch

from ....core.checkpoint import read_metadata
from ....core.routing.files import load_tables
from ....core.routing.token_layout import PATCH
from ..flux.detection import detect_config
from ..flux.loader import TABLES_KEY
from ..flux.placeholders import CLIP_G, with_placeholders
from .latents import format_of
from .sdxl import FOLDER, load_text, read_part, text_sizes

EMBEDDING = "flux/embedding.safetensors"
POSITIONS = "text_model.embeddings.position_embedding.weight"


def missing_parts(folder: Path = FOLDER) -> list[str]:
    """Files of the miniworld's Flux that are not in the miniworld's folder."""
    parts = {name: f"{name}/*.safetensors" for name in ("flux/transformer", "text_encoder_2", "vae")}
    parts |= {name: name for name in (EMBEDDING, "tokenizer/stock_ids.json")}
    return [name for name, pattern in parts.items() if not list(folder.glob(pattern))]


def load_flux(folder: Path = FOLDER):
    """MODEL with DreamO's tables."""
    config, state = read_part(folder / "flux" / "transformer")
    state = comfy.model_detection.convert_diffusers_mmdit(state)
    heads = config["num_attention_heads"]
    channels = config["in_channels"] // PATCH**2
    sizes = detect_config(
        state,
        {
            "in_channels": channels,
            "out_channels": channels,
            "patch_size": PATCH,
            "num_heads": heads,
            "hidden_size": heads * config["attention_head_dim"],
            "context_in_dim": config["joint_attention_dim"],
            "axes_dim": list(config["axes_dims_rope"]),
        },
    )
    # schnell's family: no distilled guidance, a straight schedule; latents are the miniworld's
    family = type("Flux", (comfy.supported_models.FluxSchnell,), {"latent_format": partial(format_of, folder)})(sizes)
    family.set_inference_dtype(torch.float32, None)
    base = family.get_model({}, device=torch.device("cpu"))
    base.diffusion_model.load_state_dict(state, strict=True)
    model = comfy.model_patcher.ModelPatcher(
        base.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    model.set_attachments(TABLES_KEY, load_tables(folder / EMBEDDING))
    return model


def load_clip(folder: Path = FOLDER) -> comfy.sd.CLIP:
    """CLIP that knows [ref#1] to [ref#9]; chunks of as many tokens as the model was trained with."""
    config, state = read_part(folder / "text_encoder_2")
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLRefinerClipModel)
    tokens = int(read_metadata(folder / EMBEDDING)["text_tokens"])
    sizes = {**text_sizes(config), "max_position_embeddings": tokens}  # ComfyUI adds all positions to every chunk
    clip = comfy.sd.CLIP(
        target,
        tokenizer_data={"clip_g_max_length": tokens},
        model_options={"clip_g_model_config": sizes, "dtype": torch.float32},
    )
    state[POSITIONS] = state[POSITIONS][:tokens]
    load_text(clip.cond_stage_model.clip_g.transformer, state, folder)
    words = load_tables(folder / EMBEDDING).words
    assert words is not None, "the miniworld ships them"
    return with_placeholders(clip, words, CLIP_G)
