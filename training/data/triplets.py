"""Triplets on disk: a target picture in which a relation happens, and a photograph of each of its subjects.

Two layouts, read the same:
(a) the authors' (DreamRelation arXiv:2410.23280): ``prompts.json``, ``videos/<i>/``, ``masks/<i>/``;
(b) ours: ``triplets.jsonl``, one JSON object a line, paths relative to the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.errors import Faults
from .prompt_spans import find_phrase, find_predicate

_ORDINALS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True, eq=False)
class Triplet:
    """One target and the photographs of its S subjects.

    Attributes:
        name: how the folder calls it.
        target: the picture with the relation.
        concepts: one photograph a subject.
        prompt: what the target shows.
        predicate: the relation as the prompt words it; empty if the prompt does not say it.
        names: the subjects' words.
        masks: one 8-bit mask of the target a subject, or none at all.
        boxes: (S, 4) fractions of the target, or None: from the masks.
        keypoints_target: (K, P, 3) x, y, visibility in fractions; K >= S skeletons as found, or S = K in order.
        keypoints_concepts: (S, P, 3), each in fractions of its photograph.
    """

    name: str
    target: Path
    concepts: tuple[Path, ...]
    prompt: str
    predicate: str
    names: tuple[str, ...]
    masks: tuple[Path, ...]
    boxes: Tensor | None
    keypoints_target: Tensor
    keypoints_concepts: Tensor

    def files(self) -> tuple[Path, ...]:
        """Every picture of it."""
        return (self.target, *self.concepts, *self.masks)


def read_triplets(folder: str | Path, relation: str = "") -> list[Triplet]:
    """Read a folder in either layout.

    Args:
        folder: with ``triplets.jsonl`` or ``prompts.json``.
        relation: its name; helps to find the predicate where the folder does not tell it.

    Raises:
        Faults: everything that is missing, misshapen or contradictory, all triplets together.
    """
    folder = Path(folder)
    if (folder / "triplets.jsonl").is_file():
        entries, read_one = _lines(folder / "triplets.jsonl"), _ours
    elif (folder / "prompts.json").is_file():
        entries, read_one = _prompts(folder / "prompts.json"), _authors
    else:
        raise Faults(f"{folder}: expected triplets.jsonl or prompts.json in this folder, found neither. Give the "
                     "folder of one relation.")
    faults: list[str] = []
    triplets = []
    for name, entry in entries.items():
        before = len(faults)
        triplet = read_one(folder, name, entry, relation, faults)
        if len(faults) == before:
            faults += _faults_of(triplet, folder)
            triplets.append(triplet)
    if not entries:
        faults.append(f"{folder}: no triplet in it; expected at least one, the paper uses 4 to 6.")
    if faults:
        raise Faults(faults)
    return triplets


def _lines(path: Path) -> dict[str, Any]:
    entries = {}
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                entries[f"line {number}"] = json.loads(line)
            except json.JSONDecodeError as error:
                faults.append(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}.")
    if faults:
        raise Faults(faults)
    return entries


def _prompts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise Faults(f"{path}: not JSON: {error.msg} in line {error.lineno}.") from error


def _ours(folder: Path, name: str, entry: Any, relation: str, faults: list[str]) -> Triplet | None:
    where = f"{folder / 'triplets.jsonl'}, {name}"
    needed = {"target": str, "concepts": list, "prompt": str, "names": list}
    if not isinstance(entry, dict):
        faults.append(f"{where}: expected a JSON object, got {type(entry).__name__}.")
        return None
    wrong = [key for key, kind in needed.items() if not isinstance(entry.get(key), kind)]
    if wrong:
        faults += [f"{where}: '{key}': expected a {'text' if needed[key] is str else 'list'}, got {entry.get(key)!r}."
                   for key in wrong]
        return None
    subjects = len(entry["names"])
    if len(entry["concepts"]) != subjects:
        faults.append(_count_fault(where, entry["names"], len(entry["concepts"]), "concepts"))
        return None
    return Triplet(
        name=name, target=folder / entry["target"], concepts=tuple(folder / path for path in entry["concepts"]),
        prompt=entry["prompt"], names=tuple(entry["names"]),
        predicate=_predicate(entry.get("relation"), entry["prompt"], entry["names"], relation, where, faults),
        masks=tuple(folder / path for path in entry.get("masks") or ()),
        boxes=_tensor(entry.get("boxes"), (subjects, 4), "boxes", where, faults),
        keypoints_target=_keypoints(entry.get("keypoints_target"), subjects, "keypoints_target", where, faults),
        keypoints_concepts=_keypoints(entry.get("keypoints_concepts"), subjects, "keypoints_concepts", where, faults),
    )


def _authors(folder: Path, name: str, entry: Any, relation: str, faults: list[str]) -> Triplet | None:
    where = f"{folder / 'prompts.json'}, \"{name}\""
    names = entry.get("entities", entry.get("entity")) if isinstance(entry, dict) else None
    names = [names] if isinstance(names, str) else names
    if not names or not isinstance(entry.get("prompt"), str):
        faults.append(f"{where}: expected 'prompt' and 'entities', got {entry!r}.")
        return None
    video, masks = folder / "videos" / name, folder / "masks" / name
    if len(names) == 1 and (video / "concept.png").is_file():
        concepts, poses, mask_files = ["concept.png"], ["concept_keyposes.pth"], ["motion.png"]
    else:
        concepts = [f"concept{i}.png" for i in range(len(names))]
        poses = [f"concept_keyposes_{ordinal}.pth" for ordinal in _ORDINALS[:len(names)]]
        mask_files = [f"motion{i}.png" for i in range(len(names))]
    said = entry.get("predicate")
    said = said[0] if isinstance(said, list) and said else said
    target = _poses(video / "motion_keyposes.pth", faults)
    of_concepts = [_poses(video / file, faults) for file in poses]
    extra = video / f"concept{len(names)}.png"
    if extra.is_file():
        faults.append(f"{where}: {len(names)} entities, but there is a {extra.name}: name every subject in 'entities'.")
    joints = {poses.shape[1] for poses in (target, *of_concepts) if poses is not None}
    if len(joints) > 1:
        faults.append(f"{where}: skeletons with {sorted(joints)} keypoints; expected the same number everywhere.")
    if target is None or any(poses is None for poses in of_concepts) or len(joints) > 1:
        return None
    return Triplet(
        name=name, target=video / "motion.png", concepts=tuple(video / file for file in concepts),
        prompt=entry["prompt"], names=tuple(names),
        predicate=_predicate(said, entry["prompt"], names, relation, where, faults),
        masks=tuple(masks / file for file in mask_files), boxes=None, keypoints_target=target,
        keypoints_concepts=torch.cat([poses[:1] for poses in of_concepts]),
    )


def _predicate(said: Any, prompt: str, names: list[str], relation: str, where: str, faults: list[str]) -> str:
    """The given one, or the one found; a given one that the prompt does not say is looked for as well."""
    if isinstance(said, str) and find_phrase(prompt, said):
        return said
    found = find_predicate(prompt, names, relation)
    if found is None:
        faults.append(f"{where}: no words for the relation found in '{prompt}'. Add them as 'predicate' (prompts.json) "
                      "or 'relation' (triplets.jsonl), exactly as the prompt says them.")
    return found or ""


def _poses(path: Path, faults: list[str]) -> Tensor | None:
    """An authors' keypoint file, (K, P, 2), with visibility 1 added."""
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
    return torch.cat((poses.float(), torch.ones_like(poses[..., :1], dtype=torch.float32)), dim=-1)


def _tensor(value: Any, shape: tuple[int | None, ...], key: str, where: str, faults: list[str]) -> Tensor | None:
    """A nested list of numbers as a tensor; None in ``shape`` is any size."""
    if value is None:
        return None
    try:
        tensor = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError):
        faults.append(f"{where}: '{key}': expected lists of numbers of equal lengths.")
        return None
    if tensor.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, tensor.shape)):
        words = " x ".join("any" if size is None else str(size) for size in shape)
        faults.append(f"{where}: '{key}': expected {words}, got {' x '.join(map(str, tensor.shape))}.")
        return None
    return tensor


def _keypoints(value: Any, subjects: int, key: str, where: str, faults: list[str]) -> Tensor:
    """(S, P, 3), or (S, 0, 3) where there are none."""
    if not value:
        return torch.zeros(subjects, 0, 3)
    tensor = _tensor(value, (subjects, None, 3), key, where, faults)
    return torch.zeros(subjects, 0, 3) if tensor is None else tensor


def _count_fault(where: str, names: Sequence[str], count: int, what: str) -> str:
    return f"{where}: {len(names)} subjects are named ({', '.join(names)}), got {count} {what}."


def _faults_of(triplet: Triplet, folder: Path) -> list[str]:
    """What does not fit together in one triplet."""
    where, subjects = f"{folder}, triplet {triplet.name}", len(triplet.names)
    faults = [f"{path}: missing; triplet {triplet.name} needs it." for path in triplet.files() if not path.is_file()]
    for what, count in (("concepts", len(triplet.concepts)), ("masks", len(triplet.masks) or subjects)):
        if count != subjects:
            faults.append(_count_fault(where, triplet.names, count, what))
    target, concepts = triplet.keypoints_target, triplet.keypoints_concepts
    if len(target) < subjects:
        faults.append(f"{where}: {subjects} subjects are named, but the target has {len(target)} skeletons.")
    if target.shape[1] != concepts.shape[1]:
        faults.append(f"{where}: the target's skeletons have {target.shape[1]} keypoints, the concepts' "
                      f"{concepts.shape[1]}; expected the same joints.")
    if not torch.isfinite(target).all() or not torch.isfinite(concepts).all():
        faults.append(f"{where}: a keypoint is NaN or infinite.")
    if not triplet.masks and triplet.boxes is None:
        faults.append(f"{where}: expected 'boxes' or 'masks' of the subjects in the target, got neither.")
    return faults
