"""ViTPose++'s original file to one model of transformers: one expert merged into the MLP, with that expert's own head.

The six experts in order: COCO (the main head), then AIC, MPII, AP-10K, APT-36K, WholeBody (associate heads 0 to 4).
Files that hold one data set already (easy_ViTPose) have no experts and are taken as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import one_line

EXPERTS = {"ap10k": 3, "apt36k": 4}
_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}  # attention heads of S, B, L, H by their width
_RENAMED = (
    (r"^backbone\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^backbone\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^backbone\.blocks\.(\d+)\.", r"backbone.encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^backbone\.last_norm\.", "backbone.layernorm."),
    (r"^keypoint_head\.deconv_layers\.0\.", "head.deconv1."),
    (r"^keypoint_head\.deconv_layers\.1\.", "head.batchnorm1."),
    (r"^keypoint_head\.deconv_layers\.3\.", "head.deconv2."),
    (r"^keypoint_head\.deconv_layers\.4\.", "head.batchnorm2."),
    (r"^keypoint_head\.final_layer\.", "head.conv."),
)


def convert(file: Path, folder: Path, dataset: str, joints: Sequence[str]) -> str:
    """Write a folder that `--pose-animal` takes.

    Args:
        file: e.g. vitpose+_base.pth, opened with `weights_only=True`.
        folder: does not exist yet; appears only when it is whole.
        dataset: ap10k or apt36k; both have the same joints.
        joints: their names in order.

    Returns:
        A sentence for the user.

    Raises:
        ValueError: not such a file, or keys that do not fit.
    """
    from transformers import VitPoseImageProcessor

    if folder.exists():
        raise ValueError(f"{folder} exists; choose a folder that does not, so that nothing is overwritten.")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(f"{file}: cannot be read as a torch file of tensors ({one_line(error)}).") from error
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{file}: expected the weights of a ViTPose, got {type(loaded).__name__}.")
    try:
        model = build(split(weights, dataset), joints)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file}: its keys are not those of a ViTPose with {dataset}: {one_line(error)}.") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        whole = Path(temporary) / "whole"
        model.save_pretrained(whole)
        VitPoseImageProcessor().save_pretrained(whole)
        whole.replace(folder)
    count = sum(value.numel() for value in model.parameters()) / 1e6
    return f"wrote {folder}: {dataset}, {count:.1f} million weights. Use it with --pose-animal {folder}"


def split(weights: Mapping[str, Tensor], dataset: str) -> dict[str, Tensor]:
    """Keep one expert of a file and its head, under transformers' names.

    Args:
        weights: original keys, with experts in every block or without.
        dataset: whose.

    Raises:
        KeyError: a part is missing.
    """
    expert = EXPERTS[dataset]
    parts = dict(weights)
    blocks = {key.split(".mlp.experts.")[0] for key in weights if ".mlp.experts." in key}
    for block in blocks:
        for kind in ("weight", "bias"):
            own = parts[f"{block}.mlp.experts.{expert}.{kind}"]
            parts[f"{block}.mlp.fc2.{kind}"] = torch.cat((parts[f"{block}.mlp.fc2.{kind}"], own))
    head = f"associate_keypoint_heads.{expert - 1}." if blocks else "keypoint_head."
    if not any(key.startswith(head) for key in parts):
        raise KeyError(f"no {head}*")
    result = {}
    for key, value in parts.items():
        if key.startswith(head):
            key = "keypoint_head." + key.removeprefix(head)
        elif key.startswith(("keypoint_head.", "associate_keypoint_heads.")) or ".mlp.experts." in key:
            continue
        if key == "backbone.cls_token":
            continue
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        if ".attn.qkv." in key:
            block, kind = key.split(".attn.qkv.")
            for name, third in zip(("query", "key", "value"), value.chunk(3)):
                result[f"{block}.attention.attention.{name}.{kind}"] = third.clone()
        else:
            result[key] = value
    return result


def build(weights: Mapping[str, Tensor], joints: Sequence[str]) -> torch.nn.Module:
    """Make the model of split weights; every key must fit.

    Raises:
        KeyError, RuntimeError: a key is missing, left over or of another shape.
    """
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    width = weights["backbone.layernorm.weight"].shape[0]
    layers = len({key.split(".")[3] for key in weights if key.startswith("backbone.encoder.layer.")})
    backbone = VitPoseBackboneConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS.get(width, max(1, width // 64)),
        mlp_ratio=weights["backbone.encoder.layer.0.mlp.fc1.weight"].shape[0] // width,
        num_experts=1,
        out_indices=[layers],
    )
    names = {index: name.replace(" ", "_") for index, name in enumerate(joints)}
    config = VitPoseConfig(
        backbone_config=backbone,
        use_simple_decoder=False,
        num_labels=len(joints),
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    model = VitPoseForPoseEstimation(config)
    model.load_state_dict(dict(weights), strict=True)
    return model.eval()
