"""Files of the identity room: the identity model (MS-Diffusion's ms_adapter.bin or safetensors) and CLIPSelf towers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import compare_keys, describe, read, shapes
from ..cross_attention_layers import SDXL
from .model import IdentityConfig, IdentityModel
from .resampler import ResamplerConfig

PARTS = ("image_proj", "ms_adapter", "dummy_image_tokens")
RELEASED = IdentityConfig(
    ResamplerConfig(width=1280, depth=4, head_width=64, attention_width=1280, tokens=16, image_width=1664,
                    context_width=2048, feedforward_width=5120, phrase_width=768),
    widths=tuple(site.width for site in SDXL.sites()),
    background_tokens=4,
)


def load_identity(path: str | Path) -> tuple[dict[str, Tensor], IdentityConfig]:
    """Read an identity model, published or ours, of any widths and depths that fit each other.

    Args:
        path: ``ms_adapter.bin`` (exactly the three top-level names of ``PARTS``) or safetensors with these as
            prefixes. Metadata ``head_width`` gives the width of a head in the resampler, 64 without it.

    Returns:
        The state dict of an ``IdentityModel``, and the config to build it.

    Raises:
        ValueError: unreadable, or not an identity model; names every missing, unexpected and misshapen key.
    """
    path = Path(path)
    content, metadata = read(path)
    state = flatten(content, path.name)
    try:
        config = IdentityConfig.from_state(state, int(metadata.get("head_width", 64)))
    except (KeyError, IndexError, ValueError):
        config = RELEASED  # too little there to tell any sizes: report against the published model
    with torch.device("meta"):
        expected = shapes(IdentityModel(config).state_dict())
    compare_keys(shapes(state), expected, path.name, "an identity model (MS-Diffusion's ms_adapter)")
    return state, config


def flatten(content: dict, file: str) -> dict[str, Tensor]:
    """The published nesting to prefixed keys; a prefixed file as it is.

    Raises:
        ValueError: other top-level names than the three of ``PARTS``.
    """
    if all(isinstance(value, Tensor) for value in content.values()) and any("." in key for key in content):
        return content
    names = set(content)
    if names != set(PARTS) or not all(isinstance(content[part], dict) for part in PARTS[:2]):
        raise ValueError(f"{file}: expected an identity model with exactly {', '.join(PARTS)}, got "
                         f"{', '.join(sorted(map(str, names))[:6]) or 'nothing'}. {describe(map(str, names))}")
    state = {f"{part}.{key}": tensor for part in PARTS[:2] for key, tensor in content[part].items()}
    state[PARTS[2]] = content[PARTS[2]].detach()
    return state


def load_vision_tower(path: str | Path) -> dict[str, Tensor]:
    """The vision tower of an open_clip or CLIPSelf checkpoint, nothing else of it touched.

    A CLIPSelf training checkpoint holds the text tower and the optimizer too (6 GB and more): it is memory-mapped,
    and only the pages of the tensors returned are ever read.

    Returns:
        The tensors under ``visual.``, with that prefix.

    Raises:
        ValueError: unreadable, without a vision tower, or a tower with faults in its keys.
    """
    path = Path(path)
    content, _ = read(path)
    state = content.get("state_dict", content)
    if any(str(key).startswith("module.") for key in state):  # saved from a distributed run
        state = {key.removeprefix("module."): value for key, value in state.items()}
    tower = {key: value for key, value in state.items() if key.startswith("visual.")}
    if not tower:
        raise ValueError(f"{path.name}: expected a CLIP with a vision tower (keys under 'visual.'), got none. "
                         f"{describe(map(str, state))}")
    compare_keys(shapes(tower), _tower_shapes(tower), path.name, "a CLIP vision tower")
    return tower


def _tower_shapes(tower: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The key set of an open_clip vision tower with the sizes its first tensors tell."""
    conv = tower.get("visual.conv1.weight", torch.empty(1664, 3, 14, 14, device="meta"))
    positions = tower.get("visual.positional_embedding", torch.empty(257, conv.shape[0], device="meta"))
    projection = tower.get("visual.proj", torch.empty(conv.shape[0], 1280, device="meta"))
    fc = tower.get("visual.transformer.resblocks.0.mlp.c_fc.weight", torch.empty(8192, conv.shape[0], device="meta"))
    width, hidden = conv.shape[0], fc.shape[0]
    depth = 1 + max((int(key.split(".")[3]) for key in tower if ".resblocks." in key), default=47)
    expected = {
        "visual.class_embedding": (width,), "visual.positional_embedding": tuple(positions.shape),
        "visual.proj": (width, projection.shape[-1]), "visual.conv1.weight": tuple(conv.shape),
    }
    norms = ["visual.ln_pre", "visual.ln_post"]
    for block in (f"visual.transformer.resblocks.{index}" for index in range(depth)):
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        expected |= {
            f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,),
            f"{block}.attn.out_proj.weight": (width, width), f"{block}.attn.out_proj.bias": (width,),
            f"{block}.mlp.c_fc.weight": (hidden, width), f"{block}.mlp.c_fc.bias": (hidden,),
            f"{block}.mlp.c_proj.weight": (width, hidden), f"{block}.mlp.c_proj.bias": (width,),
        }
    return expected | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
