"""Triplets on disk: a target picture in which a relation happens, and a photograph of each of its subjects.

Two layouts, read the same:
(a) the authors' (DreamRelation arXiv:2410.23280): ``prompts.json``, ``videos/<i>/``, ``masks/<i>/``;
(b) ours: ``triplets.jsonl``, one JSON object a line, paths relative to the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.user_files import read_json_lines, read_json_object

from ..common.errors import UserErrors
from ..common.schema import check_path, checked_entry
from .prompt_spans import find_phrase, find_predicate
from .triplet import Triplet
from .triplet_entries import AuthorsEntry, TripletEntry, as_tensor, box_faults, joint_faults

_ORDINALS = ("one", "two", "three", "four", "five", "six")


def read_triplets(folder: str | Path, relation: str = "") -> list[Triplet]:
    """Read a folder in either layout; images are looked for, not opened.

    Args:
        folder: with ``triplets.jsonl`` or ``prompts.json``.
        relation: its name; helps to find the predicate where the folder does not name it.

    Raises:
        UserErrors: everything that is missing, misshapen or contradictory, all triplets together.
    """
    # 1. the entries, in either layout
    folder = Path(folder)
    faults: list[str] = []
    try:
        if (folder / "triplets.jsonl").is_file():
            lines, faults = read_json_lines(folder / "triplets.jsonl")
            entries, read_one = {f"line {number}": entry for number, entry in lines.items()}, _ours
        elif (folder / "prompts.json").is_file():
            entries, read_one = read_json_object(folder / "prompts.json"), _authors
        else:
            raise ValueError(
                f"{folder}: expected triplets.jsonl or prompts.json in this folder, found neither. Give "
                "the folder of one relation."
            )
    except ValueError as error:
        raise UserErrors(str(error)) from error
    if not entries and not faults:
        faults.append(f"{folder}: no triplet in it; expected at least one, the paper uses 4 to 6.")
    # 2. each of them; those without a fault of their own are compared with the disk
    triplets = []
    for name, entry in entries.items():
        before = len(faults)
        triplet = read_one(folder, name, entry, relation, faults)
        if len(faults) == before:
            faults += _faults_of(triplet, folder)
            triplets.append(triplet)
    if faults:
        raise UserErrors(faults)
    return triplets


def _ours(folder: Path, name: str, entry: Any, relation: str, faults: list[str]) -> Triplet | None:
    where = f"{folder / 'triplets.jsonl'}, {name}"
    fields = checked_entry(TripletEntry, entry, where, faults)
    if fields is None:
        return None
    subjects = len(fields.names)
    if len(fields.concepts) != subjects:
        faults.append(_count_fault(where, fields.names, len(fields.concepts), "concepts"))
        return None
    boxes = as_tensor(fields.boxes, (subjects, 4), "boxes", where, faults)
    if boxes is not None:
        faults += [f"{where}: 'boxes': {fault}" for fault in box_faults(boxes, fields.names)]
    return Triplet(
        name=name,
        target=folder / fields.target,
        concepts=tuple(folder / path for path in fields.concepts),
        prompt=fields.prompt,
        names=tuple(fields.names),
        predicate=_predicate(fields.relation, fields.prompt, fields.names, relation, where, faults),
        masks=tuple(folder / path for path in fields.masks or ()),
        boxes=None if boxes is None else boxes.clamp(0, 1),
        keypoints_target=_keypoints(fields.keypoints_target, subjects, "keypoints_target", "the target", where, faults),
        keypoints_concepts=_keypoints(
            fields.keypoints_concepts, subjects, "keypoints_concepts", "its concept", where, faults
        ),
        extra=fields.extra(),
    )


def _authors(folder: Path, name: str, entry: Any, relation: str, faults: list[str]) -> Triplet | None:
    where = f'{folder / "prompts.json"}, "{name}"'
    fields = checked_entry(AuthorsEntry, entry, where, faults)
    if fields is None:
        return None
    # 1. the entry, and the folders that it names
    names = fields.entities
    try:
        check_path(name)
    except ValueError as error:
        faults.append(f"{where}: {error}")
        return None
    video, masks = folder / "videos" / name, folder / "masks" / name
    if len(names) == 1 and (video / "concept.png").is_file():
        concept_files, pose_files, mask_files = ["concept.png"], ["concept_keyposes.pth"], ["motion.png"]
    else:
        concept_files = [f"concept{i}.png" for i in range(len(names))]
        pose_files = [f"concept_keyposes_{ordinal}.pth" for ordinal in _ORDINALS[: len(names)]]
        mask_files = [f"motion{i}.png" for i in range(len(names))]
    # 2. the keypoints, and what does not fit among the files
    target_poses = _poses(video / "motion_keyposes.pth", "the target", faults)
    concept_poses = [_poses(video / file, "its concept", faults) for file in pose_files]
    extra = video / f"concept{len(names)}.png"
    if extra.is_file():
        faults.append(f"{where}: {len(names)} entities, but there is a {extra.name}: name every subject in 'entities'.")
    joints = {poses.shape[1] for poses in (target_poses, *concept_poses) if poses is not None}
    if len(joints) > 1:
        faults.append(f"{where}: skeletons with {sorted(joints)} keypoints; expected the same number everywhere.")
    # 3. the predicate, named or found in the prompt
    predicate = _predicate((fields.predicate or [""])[0], fields.prompt, names, relation, where, faults)
    if target_poses is None or any(poses is None for poses in concept_poses) or len(joints) > 1:
        return None
    return Triplet(
        name=name,
        target=video / "motion.png",
        concepts=tuple(video / file for file in concept_files),
        prompt=fields.prompt,
        names=tuple(names),
        predicate=predicate,
        masks=tuple(masks / file for file in mask_files),
        boxes=None,
        keypoints_target=target_poses,
        keypoints_concepts=torch.cat([poses[:1] for poses in concept_poses]),
    )


def _predicate(
    wording: str | None, prompt: str, names: Sequence[str], relation: str, where: str, faults: list[str]
) -> str:
    """Return the entry's wording if the prompt has it, else the predicate that the prompt has."""
    if wording and find_phrase(prompt, wording):
        return wording
    predicate = find_predicate(prompt, names, relation)
    if predicate is None:
        faults.append(
            f"{where}: no words for the relation found in '{prompt}'. Add them as 'predicate' (prompts.json) "
            "or 'relation' (triplets.jsonl), exactly as the prompt says them."
        )
    return predicate or ""


def _poses(path: Path, of: str, faults: list[str]) -> Tensor | None:
    """Return an authors' keypoint file, (K, P, 2), with visibility 1 added."""
    if not path.is_file():
        faults.append(f"{path}: missing; expected keypoints as a torch file of shape (subjects, 17, 2).")
        return None
    try:
        poses = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        faults.append(f"{path}: cannot be read as a torch file of one tensor ({type(error).__name__}).")
        return None
    if not isinstance(poses, Tensor) or poses.ndim != 3 or poses.shape[-1] != 2 or 0 in poses.shape:
        shape = tuple(poses.shape) if isinstance(poses, Tensor) else type(poses).__name__
        faults.append(f"{path}: expected keypoints of shape (subjects, 17, 2), got {shape}.")
        return None
    if not torch.isfinite(poses).all():
        faults.append(f"{path}: a keypoint is NaN or infinite.")
        return None
    skeletons = torch.cat((poses.float(), torch.ones_like(poses[..., :1], dtype=torch.float32)), dim=-1)
    faults += [f"{path}: {fault}" for fault in joint_faults(skeletons, of)]
    return skeletons


def _keypoints(value: Any, subjects: int, key: str, of: str, where: str, faults: list[str]) -> Tensor:
    """Check keypoints: (S, P, 3), or (S, 0, 3) where there are none."""
    tensor = as_tensor(value or None, (subjects, None, 3), key, where, faults)
    if tensor is None:
        return torch.zeros(subjects, 0, 3)
    faults += [f"{where}: '{key}': {fault}" for fault in joint_faults(tensor, of)]
    return tensor


def _count_fault(where: str, names: Sequence[str], count: int, what: str) -> str:
    return f"{where}: {len(names)} subjects are named ({', '.join(names)}), got {count} {what}."


def _faults_of(triplet: Triplet, folder: Path) -> list[str]:
    """Return what does not fit together in one triplet."""
    where, subjects = f"{folder}, triplet {triplet.name}", len(triplet.names)
    faults = [f"{path}: missing; triplet {triplet.name} needs it." for path in triplet.files() if not path.is_file()]
    for what, count in (("concepts", len(triplet.concepts)), ("masks", len(triplet.masks) or subjects)):
        if count != subjects:
            faults.append(_count_fault(where, triplet.names, count, what))
    target, concepts = triplet.keypoints_target, triplet.keypoints_concepts
    if len(target) < subjects:
        faults.append(f"{where}: {subjects} subjects are named, but the target has {len(target)} skeletons.")
    if target.shape[1] != concepts.shape[1]:
        faults.append(
            f"{where}: the target's skeletons have {target.shape[1]} keypoints, the concepts' "
            f"{concepts.shape[1]}; expected the same joints."
        )
    if not triplet.masks and triplet.boxes is None:
        faults.append(f"{where}: expected 'boxes' or 'masks' of the subjects in the target, got neither.")
    return faults
