"""DreamO's published files: the embedding tables, and its LoRAs in every layout, under ComfyUI's names.

    embedding.safetensors, dreamo.safetensors   three tables (the latter beside a fused LoRA)
    dreamo*.safetensors (root)                  fused: one down and up for q, k and v, underscore before the block
    *_comfyui.safetensors, v1.1/*.safetensors   split: diffusers' names under ``transformer.``
    turbo                                       split, every linear of Flux

Fused pairs keep their form: ComfyUI knows the rows of ``linear1`` that are q, k and v as ``linear1_qkv``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..checkpoint import SHOWN, describe, read
from .token_layout import Tables

TABLES = ("dreamo_task_embedding.weight", "dreamo_idx_embedding.weight", "dreamo_t5_embedding.weight")
_FUSED = re.compile(
    r"(?P<stream>double|single)_blocks[._](?P<block>\d+)[._](?:.*[._])?"
    r"(?P<name>qkv_lora1|qkv_lora2|proj_lora1|proj_lora2|qkv_lora|proj_lora)\.(?P<side>down|up)\.weight$")
_SPLIT = re.compile(
    r"(?P<module>(?:base_model\.model\.|transformer\.|lycoris_|lora_transformer_|lora_unet_|diffusion_model\.).+)\."
    r"(?:lora_(?P<peft>[AB])|lora[._](?P<kohya>down|up))(?:\.default)?\.weight$")
_FUSED_NAMES = {
    ("double", "qkv_lora1"): "img_attn.qkv", ("double", "qkv_lora2"): "txt_attn.qkv",
    ("double", "proj_lora1"): "img_attn.proj", ("double", "proj_lora2"): "txt_attn.proj",
    ("single", "qkv_lora"): "linear1_qkv", ("single", "proj_lora"): "linear2",
}


@dataclass(frozen=True)
class Adapter:
    """One LoRA of a preset.

    Attributes:
        name: its widget.
        strength: as published.
        files: its published names, ComfyUI's layout first.
    """

    name: str
    strength: float
    files: tuple[str, ...]


_DREAMO = Adapter("dreamo", 1.0, ("dreamo_comfyui.safetensors", "dreamo.safetensors"))
_CFG = Adapter("cfg_distill", 1.0, ("dreamo_cfg_distill_comfyui.safetensors", "dreamo_cfg_distill.safetensors"))
_POS = Adapter("quality_pos", 0.15, ("dreamo_quality_lora_pos_comfyui.safetensors",
                                     "dreamo_quality_lora_pos.safetensors"))
_NEG = Adapter("quality_neg", -0.8, ("dreamo_quality_lora_neg_comfyui.safetensors",
                                     "dreamo_quality_lora_neg.safetensors"))
_SFT = Adapter("sft", 1.0, ("dreamo_sft_lora.safetensors",))
_DPO = Adapter("dpo", 1.25, ("dreamo_dpo_lora.safetensors",))  # ComfyUI-DreamO's own workflow says 1.2
TURBO = Adapter("turbo", 1.0, ("flux-turbo.safetensors", "FLUX.1-Turbo-Alpha.safetensors"))
ADAPTERS = (_DREAMO, _CFG, _POS, _NEG, _SFT, _DPO)
PRESETS = {"v1.1": (_DREAMO, _CFG, _SFT, _DPO), "v1": (_DREAMO, _CFG, _POS, _NEG)}


@dataclass(frozen=True, eq=False)
class FluxLoRA:
    """Pairs of one file under names that ComfyUI's LoRA loader knows.

    Attributes:
        state: ``<module>.lora_down.weight``, ``.lora_up.weight`` (or the file's own spelling) and ``.alpha``.
        pairs: how many.
        layout: "fused" or "split".
        left_out: keys of the file that are no LoRA of Flux.
    """

    state: dict[str, Tensor]
    pairs: int
    layout: str
    left_out: tuple[str, ...] = ()


def load_tables(path: str | Path) -> Tables:
    """The embedding tables of ``embedding.safetensors``, or of a root LoRA that holds them too.

    Raises:
        ValueError: unreadable, a table missing or misshapen.
    """
    path = Path(path)
    content, _ = read(path)
    missing = [key for key in TABLES[:2] if key not in content]
    if missing:
        raise ValueError(f"{path.name}: expected DreamO's embeddings ({', '.join(TABLES)}), but {', '.join(missing)} "
                         f"missing among its {len(content)} tensors. {describe(map(str, content))} Choose "
                         "embedding.safetensors of ByteDance/DreamO.")
    task, index = (content[key] for key in TABLES[:2])
    words = content.get(TABLES[2])
    try:
        return Tables(task, index, None if words is None else words[-10:])  # the published code takes the last ten too
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def load_flux_lora(path: str | Path) -> FluxLoRA:
    """A LoRA of Flux in any published layout.

    Raises:
        ValueError: unreadable, no LoRA of Flux in it, or pairs without their other half.
    """
    path = Path(path)
    content, _ = read(path)
    return normalise({key: value for key, value in content.items() if isinstance(value, Tensor)}, path.name)


def normalise(content: dict[str, Tensor], file: str) -> FluxLoRA:
    """Sort a state dict by its layout; see ``load_flux_lora``."""
    state: dict[str, Tensor] = {}
    halves: dict[str, set[str]] = {}
    left_out, fused = [], 0
    for key, tensor in content.items():
        found = _renamed(key)
        if found is None:
            if not key.endswith(".alpha"):
                left_out.append(key)
            else:
                state[key] = tensor
            continue
        module, side, was_fused = found
        state[f"{module}.lora_{side}.weight"] = tensor
        halves.setdefault(module, set()).add(side)
        fused += was_fused
    single = [module for module, sides in halves.items() if len(sides) == 1]
    if single:
        more = f", and {len(single) - SHOWN} more" if len(single) > SHOWN else ""
        raise ValueError(f"{file}: {len(single)} of {len(halves)} pairs have only one half: "
                         f"{', '.join(single[:SHOWN])}{more}. The file is not whole: download it again.")
    if not halves:
        raise ValueError(f"{file}: expected a LoRA for Flux, found none among its {len(content)} tensors. "
                         f"{describe(content)}")
    left_out = [key for key in left_out if key not in TABLES]
    return FluxLoRA(state, len(halves), "fused" if fused else "split", tuple(left_out))


def _renamed(key: str) -> tuple[str, str, bool] | None:
    """A key to ComfyUI's module name, down or up, and whether it was fused; None if it is no half of a pair."""
    match = _FUSED.search(key)
    if match is not None:
        name = _FUSED_NAMES.get((match["stream"], match["name"]))
        if name is None:
            return None
        return f"diffusion_model.{match['stream']}_blocks.{match['block']}.{name}", match["side"], True
    match = _SPLIT.match(key)
    if match is None:
        return None
    return match["module"], match["kohya"] or {"A": "down", "B": "up"}[match["peft"]], False


def find_file(adapter: Adapter, available: list[str]) -> str | None:
    """The published file of an adapter among file names with folders, ComfyUI's layout first; None if absent."""
    for wanted in adapter.files:
        for name in available:
            if Path(name.replace("\\", "/")).name.lower() == wanted.lower():
                return name
    return None
