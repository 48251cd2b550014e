"""CLIP vision encoders from disk: a transformers folder, or one file in either key layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from core.checkpoint import read, read_metadata
from core.identity.files import load_vision_tower
from core.key_report import compare_keys, describe, shapes
from core.user_files import read_json_object, visible_files

# Heads cannot be read from tensors. Width: (heads, activation) of bigG, H, L and B; other widths have 64 a head.
_HEADS = {1664: (16, "gelu"), 1280: (16, "gelu"), 1024: (16, "quick_gelu"), 768: (12, "quick_gelu")}


def load_vision(path: str | Path, dtype: torch.dtype) -> nn.Module:
    """Return a CLIP vision encoder (``CLIPVisionModelWithProjection``), frozen.

    Args:
        path: a folder of transformers, or a file: transformers' names (``vision_model.``) or open_clip's and CLIPSelf's
            (``visual.``). Metadata ``heads`` and ``activation`` are read where a file has them.
        dtype: of its weights.

    Raises:
        ValueError: not such an encoder, with the faults of its keys.
    """
    path = Path(path)
    if path.is_dir():
        try:
            model = CLIPVisionModelWithProjection.from_pretrained(path, torch_dtype=dtype, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a CLIP vision encoder of transformers ({error}).") from error
    else:
        model = _from_file(path, dtype)
    return model.to(dtype).eval().requires_grad_(False)


@dataclass(frozen=True)
class VisionSizes:
    """Of an encoder: width of its tokens, width of its projected embedding, number of its patches."""

    width: int
    embedding: int
    patches: int


def vision_sizes(path: Path) -> VisionSizes:
    """Read an encoder's sizes from its config or its tensors' shapes; weights are not loaded.

    Raises:
        ValueError: not such an encoder, or one without a projection.
    """
    width = vision_width(path)
    if path.is_dir():
        config = read_json_object(path / "config.json")
        config = CLIPVisionConfig(**config.get("vision_config", config))
        return VisionSizes(width, config.projection_dim, (config.image_size // config.patch_size) ** 2)
    tensor_shapes = _shapes(path)
    ends = ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding")
    positions = [shape[0] for key, shape in tensor_shapes.items() if key.endswith(ends)]
    embedding = [shape[0] for key, shape in tensor_shapes.items() if key.endswith("visual_projection.weight")]
    embedding += [shape[1] for key, shape in tensor_shapes.items() if key.endswith("visual.proj")]
    if len(positions) != 1 or len(embedding) != 1:
        raise ValueError(f"{path.name}: expected a CLIP vision encoder with its projection. {describe(tensor_shapes)}")
    return VisionSizes(width, embedding[0], positions[0] - 1)


def vision_width(path: Path) -> int:
    """Return the width of an encoder's tokens, from its config or its tensors' shapes; weights are not loaded.

    Raises:
        ValueError: not such an encoder.
    """
    if not path.is_dir():
        tensor_shapes = _shapes(path)
        widths = [
            shape[0]
            for key, shape in tensor_shapes.items()
            if key.endswith(("visual.class_embedding", "vision_model.embeddings.class_embedding")) and shape
        ]
        if len(widths) != 1:
            raise ValueError(f"{path.name}: expected a CLIP vision encoder. {describe(tensor_shapes)}")
        return widths[0]
    config = read_json_object(path / "config.json")
    config = config.get("vision_config", config)
    weights = visible_files(path, {".safetensors", ".bin"})
    if "clip" not in str(config.get("model_type", "")) or not isinstance(config.get("hidden_size"), int):
        raise ValueError(
            f"{path}: expected a CLIP vision encoder of transformers, got config.json of '{config.get('model_type')}'."
        )
    if not weights:
        raise ValueError(f"{path}: no weights (.safetensors, .bin) beside config.json. Download the folder again.")
    for file in weights:
        read_metadata(file)  # a file that is cut off is named here
    return config["hidden_size"]


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
    except (SafetensorError, OSError):  # a torch archive, or a broken file: `read` says which
        content = read(path)[0]
    return {
        str(key): tuple(tensor.shape)
        for key, tensor in content.get("state_dict", content).items()
        if isinstance(tensor, Tensor)
    }


def _from_file(path: Path, dtype: torch.dtype) -> nn.Module:
    content, metadata = read(path)
    if any("visual.conv1.weight" in str(key) for key in content.get("state_dict", content)):
        state = _from_open_clip(load_vision_tower(path))
    else:
        state = {key: tensor for key, tensor in content.items() if "position_ids" not in key}
    anchor = "vision_model.embeddings.patch_embedding.weight"
    if anchor not in state:
        raise ValueError(f"{path.name}: expected a CLIP vision encoder with '{anchor}'. {describe(map(str, content))}")
    config = _config(state, metadata)
    model = CLIPVisionModelWithProjection(config).to(dtype)
    load_weights(model, state, "vision_model.", path.name, "a CLIP vision encoder")
    return model


def load_weights(model: nn.Module, state: dict[str, Tensor], prefix: str, file: str, what: str) -> None:
    """Load tensors whose names have a prefix into a model of transformers, which names its body with or without it.

    Raises:
        ValueError: keys or shapes do not fit; it names the file and what the model is.
    """
    expected = model.state_dict()
    if not any(key.startswith(prefix) for key in expected):
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    compare_keys(shapes(state), shapes(expected), file, what)
    model.load_state_dict(state)


def _config(state: dict[str, Tensor], metadata: dict[str, str]) -> CLIPVisionConfig:
    """Read every size from the tensors."""
    patches = state["vision_model.embeddings.patch_embedding.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    positions = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    heads, activation = _HEADS.get(width, (max(1, width // 64), "gelu"))
    layers = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("vision_model.encoder.layers."))
    projection = state.get("visual_projection.weight")
    return CLIPVisionConfig(
        hidden_size=width,
        patch_size=patch,
        image_size=patch * round((positions - 1) ** 0.5),
        intermediate_size=state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=int(metadata.get("heads", heads)),
        hidden_act=metadata.get("activation", activation),
        projection_dim=width if projection is None else projection.shape[0],
        layer_norm_eps=1e-5,
    )


def _from_open_clip(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename open_clip's vision tensors to transformers' names."""
    state = {
        "visual_projection.weight": tower["visual.proj"].T,
        "vision_model.embeddings.class_embedding": tower["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tower["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": tower["visual.positional_embedding"],
    }
    for norm, theirs in {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}.items():
        state |= {f"vision_model.{theirs}.{part}": tower[f"visual.{norm}.{part}"] for part in ("weight", "bias")}
    prefix = "visual.transformer.resblocks."
    blocks = {key.removeprefix(prefix): tensor for key, tensor in tower.items() if key.startswith(prefix)}
    return state | {f"vision_model.encoder.layers.{key}": tensor for key, tensor in rename_blocks(blocks).items()}


def rename_blocks(blocks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename open_clip's transformer blocks (``<i>.attn.in_proj_weight`` ...) to transformers' CLIP layers."""
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    renamed = {}
    for key, tensor in blocks.items():
        index, _, rest = key.partition(".")
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for name, rows in zip("qkv", tensor.chunk(3)):
                renamed[f"{index}.self_attn.{name}_proj.{kind}"] = rows
        else:
            module, _, kind = rest.rpartition(".")
            renamed[f"{index}.{parts[module]}.{kind}"] = tensor
    return renamed
