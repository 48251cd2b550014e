"""Synthetic weight files for the tiny SDXL of `test_pack/tiny.py`, in the layouts of the real ones."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

# Text cross-attentions as (transformer, depth, channels), in the published order (down, up, middle): SDXL's 70 at a
# tenth of its width, and the 8 of a UNet of two levels, quick enough to be sampled a hundred times.
SDXL = (
    *((f"down_blocks.1.attentions.{i}", 2, 64) for i in range(2)),
    *((f"down_blocks.2.attentions.{i}", 10, 128) for i in range(2)),
    *((f"up_blocks.0.attentions.{i}", 10, 128) for i in range(3)),
    *((f"up_blocks.1.attentions.{i}", 2, 64) for i in range(3)),
    ("mid_block.attentions.0", 10, 128),
)
SMALL = (
    ("down_blocks.1.attentions.0", 2, 64),
    *((f"up_blocks.0.attentions.{i}", 2, 64) for i in range(2)),
    ("mid_block.attentions.0", 2, 64),
)
Blocks = tuple[tuple[str, int, int], ...]
CONTEXT, PHRASE, IMAGE = 64, 24, 48
RESAMPLER_WIDTH, ATTENTION_WIDTH, QUERIES, DEPTH, DUMMIES = 32, 128, 4, 2, 4


def draw(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Tensors of these shapes from a seed: matrices of unit gain, norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in sorted(shapes.items()):
        noise = torch.randn(shape, generator=generator)
        if len(shape) >= 2:
            state[name] = noise / math.sqrt(math.prod(shape[1:]))
        else:
            state[name] = 1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise
    return state


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, to: int, of: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (to, of), f"{name}.bias": (to,)}


def _resampler_shapes() -> dict[str, tuple[int, ...]]:
    query, width = PHRASE + 64, RESAMPLER_WIDTH
    shapes = {
        "grounding_latents": (1, QUERIES, width),
        **_linear("latent_proj.0", 2 * query, query),
        **_linear("latent_proj.2", QUERIES * width, 2 * query),
        **_norm("latent_norm", width),
        **_linear("proj_in", width, IMAGE),
        **_norm("attention_norm", width),
        **_linear("proj_out", CONTEXT, width),
        **_norm("norm_out", CONTEXT),
    }
    for layer in range(DEPTH):
        shapes |= {
            **_norm(f"layers.{layer}.0.norm1", width),
            **_norm(f"layers.{layer}.0.norm2", width),
            f"layers.{layer}.0.to_q.weight": (ATTENTION_WIDTH, width),
            f"layers.{layer}.0.to_kv.weight": (2 * ATTENTION_WIDTH, width),
            f"layers.{layer}.0.to_out.weight": (width, ATTENTION_WIDTH),
            **_norm(f"layers.{layer}.1.0", width),
            f"layers.{layer}.1.1.weight": (2 * width, width),
            f"layers.{layer}.1.3.weight": (width, 2 * width),
        }
    return shapes


def sites(blocks: Blocks) -> list[tuple[str, int]]:
    """Diffusers path and channels of each text cross-attention, in the published order."""
    return [
        (f"{path}.transformer_blocks.{index}.attn2", width) for path, depth, width in blocks for index in range(depth)
    ]


def identity_model(blocks: Blocks = SDXL, seed: int = 11) -> dict[str, dict[str, Tensor] | Tensor]:
    """What `ms_adapter.bin` holds: exactly its three top-level names."""
    shapes = {}
    for site, (_, width) in enumerate(sites(blocks)):
        shapes |= {f"{2 * site + 1}.{part}.weight": (width, CONTEXT) for part in ("to_k_ip", "to_v_ip")}
    dummies = draw({"dummy_image_tokens": (1, DUMMIES, CONTEXT)}, seed + 2)
    return {"image_proj": draw(_resampler_shapes(), seed), "ms_adapter": draw(shapes, seed + 1), **dummies}


def save_identity_bin(path: Path, blocks: Blocks = SDXL) -> Path:
    """As published: a pickle in which the dummy tokens are a Parameter."""
    state = identity_model(blocks)
    state["dummy_image_tokens"] = torch.nn.Parameter(state["dummy_image_tokens"])
    torch.save(state, path)
    return path


def save_identity_safetensors(path: Path, blocks: Blocks = SDXL) -> Path:
    """The same with the three names as prefixes."""
    state = identity_model(blocks)
    flat = {f"{part}.{name}": tensor for part in ("image_proj", "ms_adapter") for name, tensor in state[part].items()}
    save_file({**flat, "dummy_image_tokens": state["dummy_image_tokens"]}, path)
    return path


def relation_lora(
    layout: str, blocks: Blocks = SDXL, rank: int = 4, seed: int = 21, width_factor: int = 1
) -> dict[str, Tensor]:
    """A relation LoRA (280 pairs on SDXL) in one of the layouts in the wild: `kohya`, `diffusers` or `peft`.

    `width_factor` gives the widths of another base: a file that does not fit the tiny one.
    """
    state, generator = {}, torch.Generator().manual_seed(seed)
    for path, width in sites(blocks):
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            into = CONTEXT if part in ("to_k", "to_v") else width
            down = torch.randn(rank, into * width_factor, generator=generator) * 0.05
            up = torch.randn(width * width_factor, rank, generator=generator) * 0.05
            state |= _named(layout, f"{path}.{part}", down, up)
    return state


def _named(layout: str, path: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """One pair of matrices under a layout's names; only kohya files say alpha."""
    if layout == "kohya":
        stem = "lora_unet_" + path.replace(".", "_")
        alpha = torch.tensor(float(down.shape[0]))
        return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}
    if layout == "diffusers":
        return {f"unet.{path}.lora.down.weight": down, f"unet.{path}.lora.up.weight": up}
    return {f"base_model.model.{path}.lora_A.weight": down, f"base_model.model.{path}.lora_B.weight": up}


def subject_adapter(
    blocks: dict[str, int], context: int, image: tuple[int, int, int], words: tuple[int, int], seed: int = 31
) -> dict[str, Tensor]:
    """A subject adapter with open gates, without trained weights of the base.

    Args:
        blocks: width of each transformer block by diffusers' name.
        context: width of the object tokens.
        image: tokens, width and embedding of the image encoder.
        words: widths of the two text encoders.
    """
    tokens, width, embedding = image
    mlp = {"mlp.": (embedding, embedding, words[0]), "mlp_2.": (embedding, embedding, words[1])}
    mlp["proj.linears_image."] = (width + 64, context, context)
    shapes = {"proj.null_image_feature": (1, 1, tokens, width), "proj.null_position_feature": (1, 1, tokens, 64)}
    for name, (into, hidden, out) in mlp.items():
        shapes |= (
            _norm(f"{name}layernorm", into) | _linear(f"{name}fc1", hidden, into) | _linear(f"{name}fc2", out, hidden)
        )
    state = draw(shapes, seed)
    for block, wide in blocks.items():
        prefix = f"unet.{block}.fuser."
        fuser = {f"attn.{part}.weight": (wide, wide) for part in ("to_q", "to_k", "to_v")}
        fuser |= _linear("linear", wide, context) | _linear("attn.to_out.0", wide, wide) | _norm("norm1", wide)
        fuser |= _linear("ff.net.0.proj", 8 * wide, wide) | _linear("ff.net.2", wide, 4 * wide) | _norm("norm2", wide)
        state |= {prefix + name: tensor for name, tensor in draw(fuser, seed + wide).items()}
        state |= {f"{prefix}alpha_{part}": torch.tensor(0.1) for part in ("attn", "dense")}
    return state


def save_subject_adapter(folder: Path) -> None:
    """One for the tiny SDXL, in the first block of each stack."""
    first = {f"{path}.transformer_blocks.0": width for path, _, width in SDXL}
    state = subject_adapter(first, CONTEXT, (4, IMAGE, 20), (24, 40))
    save_file(state, folder / "subject_sd2.safetensors", {"kind": "subject_adapter", "head_width": "32"})


def save_models(models: Path) -> None:
    """Everything the tests load by name, in ComfyUI's own folders; `small_` files fit the UNet of two levels."""
    for folder in ("relate", "loras"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    save_subject_adapter(models / "relate")
    for prefix, blocks in (("", SDXL), ("small_", SMALL)):
        save_identity_bin(models / "relate" / f"{prefix}ms_adapter.bin", blocks)
        save_identity_safetensors(models / "relate" / f"{prefix}ms_adapter.safetensors", blocks)
        for layout in ("kohya", "diffusers", "peft"):
            save_file(relation_lora(layout, blocks), models / "loras" / f"{prefix}relation_{layout}.safetensors")
        save_file(relation_lora("kohya", blocks, seed=22), models / "loras" / f"{prefix}style.safetensors")
    save_file(relation_lora("kohya", width_factor=2), models / "loras" / "another_base.safetensors")
