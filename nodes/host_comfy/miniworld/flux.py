"""The miniworld's Flux as ComfyUI's own classes, in two variants.

``models/miniworld/flux`` has a diffusers transformer and DreamO's tables, as Load DreamO puts them on FLUX.1-dev.
``flux_index`` has a transformer alone, which numbers its references on the first position axis as FLUX.2 and Kontext
do. Text comes from the miniworld's CLIP-G alone, its states where Flux has T5's, its summary where Flux has CLIP-L's;
latents are the miniworld's VAE's. Weights are 8 bits wide on disk and float32 in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfy.model_detection
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import comfy.supported_models_base
import torch
from comfy.patcher_extension import WrappersMP

from ....core.checkpoint import read_metadata
from ....core.routing.files import load_tables
from ....core.routing.token_layout import PATCH
from ..flux.detection import detect_config
from ..flux.loader import TABLES_KEY
from ..flux.placeholders import CLIP_G, with_placeholders
from ..scene.recording_clip import with_text_positions
from .latents import format_of
from .sdxl import FOLDER, build_model, load_text, read_part, text_sizes

EMBEDDING = "flux/embedding.safetensors"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
POSITIONS = "text_model.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class Variant:
    """One of the two models that come with the pack.

    Attributes:
        folder: of its transformer, below the miniworld's.
        facts: the file whose metadata has the number of text tokens it was trained with.
        dreamo: it has DreamO's tables; else it numbers its references.
    """

    folder: str
    facts: str
    dreamo: bool


VARIANTS = {
    "DreamO": Variant("flux", EMBEDDING, True),
    "numbered references": Variant("flux_index", f"flux_index/{WEIGHTS}", False),
}
DREAMO = VARIANTS["DreamO"]


def missing_parts(folder: Path = FOLDER, variant: Variant = DREAMO) -> list[str]:
    """Name the files of a variant that are not in the miniworld's folder."""
    parts = {name: f"{name}/*.safetensors" for name in (f"{variant.folder}/transformer", "text_encoder_2", "vae")}
    parts |= {name: name for name in (*((EMBEDDING,) if variant.dreamo else ()), "tokenizer/stock_ids.json")}
    return [name for name, pattern in parts.items() if not list(folder.glob(pattern))]


def load_flux(folder: Path = FOLDER, variant: Variant = DREAMO):
    """Load the MODEL: with DreamO's tables, or numbering its references."""
    # ComfyUI's config of it, from the weights and diffusers' config
    config, state = read_part(folder / variant.folder / "transformer")
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
    model = build_model(family, state)
    if variant.dreamo:
        model.set_attachments(TABLES_KEY, load_tables(folder / EMBEDDING))
    else:
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "relate_miniworld_numbered", _number_references)
    return model


def _number_references(executor, *args, **kwargs):
    """Place references as the model was trained unless the conditioning says otherwise: ComfyUI's method "index"."""
    return executor(*args, **{"ref_latents_method": "index", **kwargs})


def load_clip(folder: Path = FOLDER, variant: Variant = DREAMO) -> comfy.sd.CLIP:
    """Load the CLIP, with chunks of as many tokens as the model was trained with.

    DreamO's has the placeholders [ref#1] to [ref#9]; the other one's records the positions of a prompt's words.
    """
    config, state = read_part(folder / "text_encoder_2")
    target = comfy.supported_models_base.ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLRefinerClipModel)
    tokens = int(read_metadata(folder / variant.facts)["text_tokens"])
    sizes = {**text_sizes(config), "max_position_embeddings": tokens}  # ComfyUI adds all positions to every chunk
    clip = comfy.sd.CLIP(
        target,
        tokenizer_data={"clip_g_max_length": tokens},
        model_options={"clip_g_model_config": sizes, "dtype": torch.float32},
    )
    state[POSITIONS] = state[POSITIONS][:tokens]
    load_text(clip.cond_stage_model.clip_g.transformer, state, folder)
    if not variant.dreamo:
        return with_text_positions(clip)
    words = load_tables(folder / EMBEDDING).words
    assert words is not None, "the miniworld ships them"
    return with_placeholders(clip, words, CLIP_G)
