"""Save one triplet in the layout that `python -m training.finetune` reads: pictures first, then its line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...core.prompt.name_tokens import mentions
from ...core.scene import WHOLE_PICTURE, Scene
from .pose_frames import largest, match_to_masks, read_poses

FILE = "triplets.jsonl"
_WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")


def save_triplet(
    folder: Path,
    target: Tensor,
    scene: Scene,
    prompt: str,
    relation: str,
    masks: Tensor | None,
    keypoints: Any,
    graph: Mapping[str, Any] | None,
) -> None:
    """Write a triplet below a folder: `0001/` with its pictures, and a line of `triplets.jsonl`.

    Args:
        folder: made if it is not there.
        target: (1, H, W, C) in [0, 1].
        scene: the subjects, each with a photograph of it alone.
        prompt: the sentence.
        relation: its words in it.
        masks: (S, h, w), 1 where each subject is in the target; None: boxes alone.
        keypoints: POSE_KEYPOINT frames of target and photographs, or None.
        graph: as it was queued; the names of its models are noted.

    Raises:
        ValueError: everything that does not fit together, in one message; nothing is written then.
    """
    # everything is checked before anything is written
    prompt, relation = " ".join(prompt.split()), " ".join(relation.split())
    target = target[None] if target.ndim == 3 else target
    masks = None if masks is None else (masks[None] if masks.ndim == 2 else masks).detach().float().cpu()
    faults = _faults(target, scene, prompt, relation, masks)
    fitted = None if masks is None or faults else _fitted(masks, target.shape[1:3])
    poses: dict[str, Any] = {}
    try:
        poses = {} if faults else _joints(scene, fitted, target.shape[1:3], keypoints)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise ValueError("Save Triplet: nothing was saved.\n" + "\n".join(faults))

    # the pictures, then the line that names them
    pictures = _pictures(target[0], scene, fitted)
    number = _write_pictures(folder, pictures)
    files = {name: f"{number}/{name}" for name in pictures}
    entry = {
        "target": files["target.png"],
        "concepts": [files[f"concept{i}.png"] for i in range(len(scene.subjects))],
        "prompt": prompt,
        "relation": relation,
        "names": [subject.name for subject in scene.subjects],
        "boxes": _boxes(scene, fitted),
        **({} if fitted is None else {"masks": [files[f"mask{i}.png"] for i in range(len(fitted))]}),
        **poses,
        "origin": {"engine": "comfyui", "models": _models(graph), "licence": "not known"},
    }
    try:
        _append(folder / FILE, json.dumps(entry, ensure_ascii=False))
    except BaseException:  # pictures without their line would be half a triplet
        shutil.rmtree(folder / number, ignore_errors=True)
        raise


def _faults(target: Tensor, scene: Scene, prompt: str, relation: str, masks: Tensor | None) -> list[str]:
    """List everything that keeps a triplet from being trained on."""
    names, faults = [subject.name for subject in scene.subjects], []
    one_target = target.ndim == 4 and len(target) == 1 and target.shape[-1] in (1, 3, 4)
    if not one_target:
        faults.append(f"target: expected one picture, got {tuple(target.shape)}; take one with Image From Batch.")
    if not names:
        faults.append("scene: expected at least one subject, got none. Connect a Subject node.")
    if masks is not None and (masks.ndim != 3 or len(masks) != len(names)):
        faults.append(f"masks: expected {len(names)}, one for each subject, got shape {tuple(masks.shape)}.")
    elif masks is not None:
        fitted = _fitted(masks, target.shape[1:3]) if one_target else masks > 0.5
        if empty := [name for name, mask in zip(names, fitted) if not mask.any()]:
            faults.append(f"masks: nothing is white in that of {', '.join(empty)}; look at the segmenter's picture.")
    unplaced = [subject.name for subject in scene.subjects if subject.box == WHOLE_PICTURE]
    if masks is None and len(names) > 1 and unplaced:
        faults.append(f"where is {' and '.join(unplaced)}? Connect masks, or draw boxes with Layout or in Subject.")
    if absent := [name for name in names if not mentions(prompt, name)]:
        faults.append(f"prompt: '{prompt}' does not name {', '.join(absent)}; use the names of the Subject nodes.")
    if not relation or not mentions(prompt, relation):
        faults.append(f"relation: '{relation}' is not in the prompt '{prompt}'; word it as the prompt does.")
    return faults


def _joints(scene: Scene, masks: Tensor | None, size: torch.Size, keypoints: Any) -> dict[str, Any]:
    """Build the line's keys about poses; none without keypoints. Masks are (S, H, W) bool, of the target's size."""
    if keypoints is None:
        return {}
    (target, *concepts), joint_order = read_poses(keypoints, len(scene.subjects))
    masks = masks if masks is not None else _box_masks(scene.layout.tensor(), size)
    return {
        "keypoints_target": _rounded(match_to_masks(target, masks)),
        "keypoints_concepts": _rounded(torch.stack([largest(skeletons) for skeletons in concepts])),
        "skeletons": [joint_order] * len(scene.subjects),
    }


def _fitted(masks: Tensor, size: torch.Size) -> Tensor:
    """(S, h, w) to (S, H, W) bool."""
    if masks.shape[1:] == size:
        return masks > 0.5
    return F.interpolate(masks[:, None], size=tuple(size), mode="nearest")[:, 0] > 0.5


def _box_masks(boxes: Tensor, size: torch.Size) -> Tensor:
    """(S, 4) fractions to (S, H, W) bool, white inside."""
    height, width = size
    x, y = (torch.arange(side).add(0.5) / side for side in (width, height))
    across = (x >= boxes[:, 0, None]) & (x < boxes[:, 2, None])  # (S, W)
    down = (y >= boxes[:, 1, None]) & (y < boxes[:, 3, None])  # (S, H)
    return down[:, :, None] & across[:, None, :]


def _boxes(scene: Scene, masks: Tensor | None) -> list[list[float]]:
    """Measure the masks' bounds, or take the scene's boxes: x0 y0 x1 y1 in fractions."""
    if masks is None:
        return [[round(edge, 6) for edge in subject.box.tensor().tolist()] for subject in scene.subjects]
    boxes = []
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        height, width = mask.shape
        edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
        boxes.append([round(float(edge), 6) for edge in edges])
    return boxes


def _pictures(target: Tensor, scene: Scene, masks: Tensor | None) -> dict[str, np.ndarray]:
    """Name the files of a triplet: the target, each subject's first photograph, masks if there are any."""
    pictures = {"target.png": _pixels(target)}
    for i, subject in enumerate(scene.subjects):
        pictures[f"concept{i}.png"] = _pixels(subject.photographs[0].movedim(0, -1))
    for i, mask in enumerate(() if masks is None else masks):
        pictures[f"mask{i}.png"] = mask.numpy().astype(np.uint8) * 255
    return pictures


def _pixels(picture: Tensor) -> np.ndarray:
    """(H, W, C) in [0, 1] to RGB uint8; transparent parts become white."""
    picture = picture.detach().float().cpu()
    if picture.shape[-1] == 4:
        picture = picture[..., :3] * picture[..., 3:] + 1 - picture[..., 3:]
    return (picture.expand(*picture.shape[:2], 3).clamp(0, 1) * 255).round().numpy().astype(np.uint8)


def _write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> str:
    """Write pictures to the first free of `0001`, `0002` ...; the folder appears when it is whole."""
    part = folder / f".part.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(part / name)
        number = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
        part.rename(folder / f"{number:04d}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{number:04d}"


def _append(file: Path, line: str) -> None:
    """Add a line; the file is replaced whole, so a full disk or a kill leaves the old one."""
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    joint = "" if not before or before.endswith("\n") else "\n"
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(f"{before}{joint}{line}\n", encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _models(graph: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """List the weight files that a queued graph names."""
    values = [value for node in (graph or {}).values() for value in node.get("inputs", {}).values()]
    files = [value for value in values if isinstance(value, str) and value.lower().endswith(_WEIGHTS)]
    return [{"file": file} for file in dict.fromkeys(files)]


def _rounded(joints: Tensor) -> list[Any]:
    return [[[round(number, 6) for number in joint] for joint in skeleton] for skeleton in joints.tolist()]
