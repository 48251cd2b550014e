"""LoRAs of Flux-class transformers in every published layout, under names that ComfyUI's loader knows.

    dreamo*.safetensors (root)                  fused: one down and up for q, k and v, underscore before the block
    *_comfyui.safetensors, v1.1/*.safetensors   split: diffusers' names under ``transformer.``
    kohya's and BFL's names                     fused, as the weights are; kept as they are

Fused pairs keep their form: ComfyUI knows the rows of ``linear1`` that are q, k and v as ``linear1_qkv``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import read, tensors_of
from .key_report import describe, first_few
from .lora_keys import (
    BIAS,
    BIASES,
    EMBEDDINGS,
    OWN_ADAPTERS,
    SUFFIXES,
    TEXT_ENCODERS,
    Alphas,
    LoraKey,
    first_names,
    is_embedding,
    read_alphas,
    split_key,
)

DREAMO_TABLES = ("dreamo_task_embedding.weight", "dreamo_idx_embedding.weight", "dreamo_t5_embedding.weight")
_FUSED = re.compile(
    r"(?P<stream>double|single)_blocks[._](?P<block>\d+)[._](?:.*[._])?"
    r"(?P<name>qkv_lora1|qkv_lora2|proj_lora1|proj_lora2|qkv_lora|proj_lora)\.(?P<side>down|up)\.weight$"
)
_FUSED_NAMES = {
    ("double", "qkv_lora1"): "img_attn.qkv",
    ("double", "qkv_lora2"): "txt_attn.qkv",
    ("double", "proj_lora1"): "img_attn.proj",
    ("double", "proj_lora2"): "txt_attn.proj",
    ("single", "qkv_lora"): "linear1_qkv",
    ("single", "proj_lora"): "linear2",
}


@dataclass(frozen=True, eq=False)
class FluxLoRA:
    """A LoRA file's tensors, under names that ComfyUI's LoRA loader knows.

    Attributes:
        state: ``<module>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``, and what else belongs to a module
            (``.dora_scale``, ``.diff`` and the like).
        pairs: number of them.
        key_format: "fused" or "split".
        left_out: keys of the file that are no LoRA.
        magnitudes: by module (out,) peft's magnitude vector, m of DoRA.
        unused: what is not applied, by what it is, e.g. text encoders to their keys.
        alpha_source: where alpha stood, if not in the file's tensors.
        metadata: the file's.
    """

    state: dict[str, Tensor]
    pairs: int
    key_format: str
    left_out: tuple[str, ...] = ()
    magnitudes: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    alpha_source: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def modules(self) -> set[str]:
        """Every module the file changes."""
        return {
            key.rpartition(".lora_up.weight")[0] or key.rpartition(".")[0]
            for key in self.state
            if key.endswith(".lora_up.weight") or key.rpartition(".")[2].startswith(OWN_ADAPTERS)
        }

    def remarks(self) -> list[str]:
        """List which parts of the file are not applied, one sentence for each sort."""
        sentences = [
            f"{len(keys)} tensors of the {sort} are not applied: {first_names(keys)}"
            for sort, keys in self.unused.items()
        ]
        if self.left_out:
            sentences.append(
                f"{len(self.left_out)} tensors are no LoRA of Flux and were left out: {first_names(self.left_out)}"
            )
        return sentences


def load_flux_lora(path: str | Path) -> FluxLoRA:
    """Return a LoRA of Flux in any published layout.

    Raises:
        ValueError: unreadable, no LoRA of Flux in it, or pairs without their other half.
    """
    path = Path(path)
    content, metadata = read(path)
    tensors, others = tensors_of(content)
    lora = to_comfy_keys(tensors, path.name, read_alphas(path, metadata))
    return replace(lora, left_out=(*lora.left_out, *others), metadata=metadata)


def to_comfy_keys(content: dict[str, Tensor], file: str, alphas: Alphas | None = None) -> FluxLoRA:
    """Sort a state dict's tensors and rename their keys; see ``load_flux_lora``.

    Args:
        alphas: alpha as the file gives it outside its tensors.
    """
    state: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    magnitudes: dict[str, Tensor] = {}
    unused: dict[str, list[str]] = {}
    left_out, fused = [], False
    # sort every key by its role
    for key, tensor in content.items():
        fused_key = _fused(key)
        lora_key = fused_key or split_key(key)
        if is_embedding(key):
            unused.setdefault(EMBEDDINGS, []).append(key)
        elif lora_key is None:
            left_out.append(key)
        elif lora_key.text_encoder:
            unused.setdefault(TEXT_ENCODERS, []).append(key)
        elif lora_key.role == BIAS:
            unused.setdefault(BIASES, []).append(key)
        elif lora_key.role == "magnitude":
            magnitudes[lora_key.spelled] = tensor.flatten()
        else:
            state[f"{lora_key.spelled}.{SUFFIXES.get(lora_key.role, lora_key.role)}"] = tensor
            if lora_key.role in ("down", "up"):
                halves.setdefault(lora_key.spelled, {})[lora_key.role] = tensor
            fused = fused or fused_key is not None

    # refuse half pairs, and files with nothing for Flux
    single = [module for module, sides in halves.items() if len(sides) == 1]
    if single:
        raise ValueError(
            f"{file}: {len(single)} of {len(halves)} pairs have only one half: {first_few(single)}. The file is not "
            "whole: download it again."
        )
    if not halves and not any(key.rpartition(".")[2].startswith(OWN_ADAPTERS) for key in state):
        texts = unused.get(TEXT_ENCODERS)
        looks = f"It is a LoRA of text encoders alone ({first_names(texts, 2)})." if texts else describe(content)
        raise ValueError(f"{file}: expected a LoRA for Flux, found none among its {len(content)} tensors. {looks}")

    # ComfyUI's loader reads alpha from tensors only
    source = _add_alphas(state, halves, alphas or Alphas())
    left_out = [key for key in left_out if key not in DREAMO_TABLES]
    return FluxLoRA(
        state,
        len(halves),
        "fused" if fused else "split",
        tuple(left_out),
        magnitudes,
        {sort: tuple(keys) for sort, keys in unused.items()},
        source,
    )


def _add_alphas(state: dict[str, Tensor], halves: dict[str, dict[str, Tensor]], alphas: Alphas) -> str:
    """Give pairs without an alpha the file's other one; return where that stands."""
    lacking = [module for module in halves if f"{module}.alpha" not in state]
    if alphas.default is None or not lacking:
        return ""
    for module in lacking:
        state[f"{module}.alpha"] = torch.tensor(alphas.of(module, halves[module]["down"].shape[0]))
    return alphas.source


def _fused(key: str) -> LoraKey | None:
    """Return a key of the root files under ComfyUI's name; None if it is none."""
    match = _FUSED.search(key)
    if match is None or (name := _FUSED_NAMES.get((match["stream"], match["name"]))) is None:
        return None
    module = f"diffusion_model.{match['stream']}_blocks.{match['block']}.{name}"
    return LoraKey(module, match["side"], module)
