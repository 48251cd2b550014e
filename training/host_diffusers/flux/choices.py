"""Which model a base is, what keeps its parts from fitting each other, and what a user should know of the choice."""

from __future__ import annotations

from pathlib import Path

from core.relation.flux_bases import FLUX_BASES
from core.routing.token_layout import DreamOEmbeddings

from .parts import FluxParts


def misfits_of(config: dict, parts: FluxParts, tables: DreamOEmbeddings | None, loras: bool, method: str) -> list[str]:
    """List what keeps the parts from being one base."""
    faults, fused = [], len(config["axes_dims_rope"]) == 4
    if parts.context_width != config["joint_attention_dim"]:
        faults.append(
            f"models.parts: its text encoders make {parts.context_width} numbers a token, the transformer reads "
            f"{config['joint_attention_dim']}: parts of different bases."
        )
    channels = config["in_channels"] // 4
    if parts.latent_channels != channels:
        faults.append(
            f"models.parts: its VAE makes {parts.latent_channels} channels, the transformer reads {channels}: parts of "
            "different bases."
        )
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if tables is not None and tables.task.shape[1] != width:
        faults.append(
            f"models.embeddings: its rows are {tables.task.shape[1]} wide, this base's tokens {width}: tables of "
            "another base."
        )
    if fused and (loras or tables is not None):
        faults.append("models.dreamo: DreamO's files are for FLUX.1; this base is FLUX.2. Leave them out.")
    if fused and method not in ("auto", "index"):
        faults.append(f'references.method: FLUX.2 knows "index", got "{method}".')
    return faults


def is_kontext(base: Path, index: dict, method: str) -> bool:
    """Tell whether a FLUX.1 is Kontext by its folder, its name or the references' method; its weights do not say."""
    return "kontext" in (str(index.get("_class_name", "")) + base.name).lower() or method == "offset"


def method_of(config: dict, kontext: bool, dreamo: bool) -> str:
    """Choose the references' positions that a base was trained with."""
    if len(config["axes_dims_rope"]) == 4:
        return "index"
    return "offset" if kontext and not dreamo else "uxo"


def remarks_on(base: Path, index: dict, config: dict, name: str, dreamo: bool) -> list[str]:
    """Say what is likely not what the user wants, with the reason."""
    remarks, klein = [], name.startswith("klein")
    by_name = klein and base.is_file() and "base" not in base.name.lower()
    if index.get("is_distilled") or by_name:
        source = "its name has no 'base' in it" if by_name else "its model_index.json says so"
        remarks.append(
            f"models.base: {base.name} is a distilled Klein ({source}). It was taught to draw in 4 steps without "
            "guidance; training on flow matching's velocity undoes that. Train on FLUX.2-klein-base, draw with either."
        )
    if name == "flux1-dev" and not config.get("guidance_embeds"):
        remarks.append(
            f"models.base: {base.name} is told no guidance: FLUX.1-schnell, distilled to 4 steps. Training on it "
            "undoes the distillation; take FLUX.1-dev."
        )
    if name == "flux1-dev" and not dreamo:
        remarks.append(
            "models.dreamo: FLUX.1-dev reads no references without DreamO's LoRAs and tables; it will learn the "
            "relation beside pictures that say nothing to it."
        )
    if name not in FLUX_BASES:
        sizes = f"{name}, {config['num_layers']} + {config['num_single_layers']} blocks"
        remarks.append(f"models.base: of no published size ({sizes}).")
    return remarks
