"""Files of the identity room: the identity model (MS-Diffusion's ms_adapter.bin or safetensors) and CLIPSelf towers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import flat_tensors, metadata_number, read
from ..cross_attention_layers import SDXL
from ..key_report import compare_keys, describe, shapes
from .model import IdentityConfig, IdentityModel
from .resampler import ResamplerConfig

PARTS = ("image_proj", "ms_adapter", "dummy_image_tokens")
RELEASED = IdentityConfig(
    ResamplerConfig(
        width=1280,
        depth=4,
        head_width=64,
        attention_width=1280,
        tokens=16,
        image_width=1664,
        context_width=2048,
        feedforward_width=5120,
        phrase_width=768,
    ),
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
    if metadata.get("kind", "identity") != "identity":
        raise ValueError(f"{path.name}: expected an identity model, got a file of kind '{metadata['kind']}'.")
    state = flatten(content, path.name)
    head_width = metadata_number(metadata, "head_width", 64, path.name)  # no tensor tells it
    try:
        config = IdentityConfig.from_state(state, head_width)
        if min((*vars(config.resampler).values(), *config.widths, config.background_tokens)) < 1:
            config = RELEASED
    except (KeyError, IndexError, ValueError):
        config = RELEASED  # too little there to tell any sizes: report against the published model
    with torch.device("meta"):
        expected = shapes(IdentityModel(config).state_dict())
    compare_keys(shapes(state), expected, path.name, "an identity model (MS-Diffusion's ms_adapter)")
    integers = [key for key, tensor in state.items() if not tensor.is_floating_point()]
    if integers:
        raise ValueError(
            f"{path.name}: expected weights that are fractions, but {len(integers)} tensors are of "
            f"{state[integers[0]].dtype} ({', '.join(integers[:3])}). Packed weights cannot be used here."
        )
    return state, config


def flatten(content: dict, file: str) -> dict[str, Tensor]:
    """Turn the published nesting into prefixed keys; return a prefixed file as it is.

    Raises:
        ValueError: other top-level names than the three of ``PARTS``.
    """
    if any(isinstance(key, str) and "." in key for key in content):
        return flat_tensors(content, file)
    names = {str(key) for key in content}
    if names != set(PARTS) or not all(isinstance(content[part], dict) for part in PARTS[:2]):
        raise ValueError(
            f"{file}: expected an identity model with exactly {', '.join(PARTS)}, got "
            f"{', '.join(sorted(names)[:6]) or 'nothing'}. {describe(names)}"
        )
    state = {f"{part}.{key}": tensor for part in PARTS[:2] for key, tensor in content[part].items()}
    state = flat_tensors({**state, PARTS[2]: content[PARTS[2]]}, file)
    return {**state, PARTS[2]: state[PARTS[2]].detach()}


def load_vision_tower(path: str | Path) -> dict[str, Tensor]:
    """Return the vision tower of an open_clip or CLIPSelf checkpoint, nothing else of it touched.

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
    if not isinstance(state, dict):
        raise ValueError(
            f"{path.name}: expected the tensors of a CLIP under 'state_dict', got a {type(state).__name__}."
        )
    state = {str(key).removeprefix("module."): value for key, value in state.items()}  # module.: of a distributed run
    tower = {key: value for key, value in state.items() if key.startswith("visual.")}
    if not tower:
        raise ValueError(
            f"{path.name}: expected a CLIP with a vision tower (keys under 'visual.'), got none. {describe(state)}"
        )
    tower = flat_tensors(tower, path.name)
    compare_keys(shapes(tower), _tower_shapes(tower), path.name, "a CLIP vision tower")
    return tower


def _tower_shapes(tower: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return an open_clip vision tower's key set, with the sizes its first tensors tell or else ViT-bigG's."""

    def sized(key: str, *published: int) -> Tensor:
        tensor = tower.get(key)
        if tensor is not None and tensor.ndim == len(published):
            return tensor
        return torch.empty(published, device="meta")

    conv = sized("visual.conv1.weight", 1664, 3, 14, 14)
    positions = sized("visual.positional_embedding", 257, conv.shape[0])
    projection = sized("visual.proj", conv.shape[0], 1280)
    fc = sized("visual.transformer.resblocks.0.mlp.c_fc.weight", 8192, conv.shape[0])
    width, hidden = conv.shape[0], fc.shape[0]
    numbers = [key.split(".")[3] for key in tower if key.startswith("visual.transformer.resblocks.")]
    depth = 1 + max((int(number) for number in numbers if number.isdigit() and len(number) < 4), default=47)
    expected = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": tuple(positions.shape),
        "visual.proj": (width, projection.shape[-1]),
        "visual.conv1.weight": tuple(conv.shape),
    }
    norms = ["visual.ln_pre", "visual.ln_post"]
    for block in (f"visual.transformer.resblocks.{index}" for index in range(depth)):
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        expected |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.attn.out_proj.bias": (width,),
            f"{block}.mlp.c_fc.weight": (hidden, width),
            f"{block}.mlp.c_fc.bias": (hidden,),
            f"{block}.mlp.c_proj.weight": (width, hidden),
            f"{block}.mlp.c_proj.bias": (width,),
        }
    return expected | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
