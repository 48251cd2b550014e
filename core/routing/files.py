"""DreamO's published files: the embedding tables, the presets of LoRAs, and the names that each is published under.

    embedding.safetensors, dreamo.safetensors   three tables (the latter beside a fused LoRA)
    turbo                                       split, every linear of Flux

The LoRAs themselves are read by `core.flux_lora_keys`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import flat_tensors, read
from ..flux_lora_keys import DREAMO_TABLES
from ..key_report import describe
from ..shapes import check_shape
from .token_layout import DreamOEmbeddings

TABLES = DREAMO_TABLES


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
_POS = Adapter(
    "quality_pos", 0.15, ("dreamo_quality_lora_pos_comfyui.safetensors", "dreamo_quality_lora_pos.safetensors")
)
_NEG = Adapter(
    "quality_neg", -0.8, ("dreamo_quality_lora_neg_comfyui.safetensors", "dreamo_quality_lora_neg.safetensors")
)
_SFT = Adapter("sft", 1.0, ("dreamo_sft_lora.safetensors",))
_DPO = Adapter("dpo", 1.25, ("dreamo_dpo_lora.safetensors",))  # ComfyUI-DreamO's own workflow says 1.2
TURBO = Adapter("turbo", 1.0, ("flux-turbo.safetensors", "FLUX.1-Turbo-Alpha.safetensors"))
ADAPTERS = (_DREAMO, _CFG, _POS, _NEG, _SFT, _DPO)
PRESETS = {"v1.1": (_DREAMO, _CFG, _SFT, _DPO), "v1": (_DREAMO, _CFG, _POS, _NEG)}


def load_tables(path: str | Path) -> DreamOEmbeddings:
    """Read the embedding tables of ``embedding.safetensors``, or of a root LoRA that holds them too.

    Raises:
        ValueError: unreadable, a table missing or misshapen.
    """
    path = Path(path)
    content, _ = read(path)
    missing = [key for key in TABLES[:2] if key not in content]
    if missing:
        raise ValueError(
            f"{path.name}: expected DreamO's embeddings ({', '.join(TABLES)}), but {', '.join(missing)} "
            f"missing among its {len(content)} tensors. {describe(map(str, content))} Choose "
            "embedding.safetensors of ByteDance/DreamO."
        )
    tables = flat_tensors({key: content[key] for key in TABLES if key in content}, path.name)
    task, index, words = tables[TABLES[0]], tables[TABLES[1]], tables.get(TABLES[2])
    try:
        if words is not None:
            check_shape(words, "N E", TABLES[2])
        # the published code takes the last ten words too
        return DreamOEmbeddings(task, index, None if words is None else words[-10:])
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def find_file(adapter: Adapter, available: list[str]) -> str | None:
    """Find the published file of an adapter among file names with folders, ComfyUI's layout first; None if absent."""
    for published_name in adapter.files:
        for name in available:
            if Path(name.replace("\\", "/")).name.lower() == published_name.lower():
                return name
    return None
