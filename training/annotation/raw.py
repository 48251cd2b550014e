"""Read raw triplets: folders with `target.*` and one picture of each subject named after it, or the same laid flat."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.user_files import read_json_object, read_text, visible, visible_files

from ..common.errors import UserErrors
from ..common.image_files import PICTURES, open_image

TARGET = "target"
_SMALLEST, _MOST_SUBJECTS = 16, 6
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')  # in file names; names of given triplets are anybody's words
_FLAT = re.compile(r"(?P<triplet>[^_ ]+)[_ ](?P<stem>.+)")


@dataclass(frozen=True)
class RawTriplet:
    """Pictures of a target and of its subjects.

    Attributes:
        name: of its folder.
        target: file in which the relation happens.
        concepts: one file for each subject.
        names: of the subjects, in the sentence's order.
        prompt: its own sentence, or empty.
        origin: who drew it, see `AnnotateOptions.origin`.
        predicate: the relation's words in its own sentence, or empty; with them the sentence stays as it is.
        kinds: what its subjects are, where its own annotation says so, or empty.
    """

    name: str
    target: Path
    concepts: tuple[Path, ...]
    names: tuple[str, ...]
    prompt: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    predicate: str = ""
    kinds: tuple[str, ...] = ()

    def pictures(self) -> tuple[Path, ...]:
        """List the target, then the concepts."""
        return (self.target, *self.concepts)

    def stems(self) -> tuple[str, ...]:
        """Name its pictures in OUT: target, then names, made different by a number."""
        stems = [TARGET]
        for name in (_UNSAFE.sub("_", name).strip(". ") or "subject" for name in self.names):
            count = sum(stem == name or stem.startswith(f"{name}_") for stem in stems)
            stems.append(f"{name}_{count + 1}" if count else name)
        return tuple(stems)


def read_raw(folder: Path) -> list[RawTriplet]:
    """Read a folder of raw triplets; every picture is decoded once.

    Raises:
        UserErrors: everything that is missing, unreadable or without a name.
    """
    if not folder.is_dir():
        raise UserErrors(f"{folder}: expected a folder of raw triplets, found none.")
    groups = {path.name: visible_files(path, PICTURES) for path in visible(folder) if path.is_dir()}
    places = {name: folder / name for name in groups}
    if not groups:
        for path in visible_files(folder, PICTURES):
            match = _FLAT.fullmatch(path.stem)
            groups.setdefault(match["triplet"] if match else path.stem, []).append(path)
        places = dict.fromkeys(groups, folder)
    faults: list[str] = []
    if not groups:
        faults.append(f"{folder}: no pictures; expected a folder for each triplet with target.png and its subjects.")
    triplets = [_triplet(name, places[name], files, places[name] == folder, faults) for name, files in groups.items()]
    if faults:
        raise UserErrors(faults)
    return [triplet for triplet in triplets if triplet]


def subject_name(stem: str) -> str:
    """Read what a picture's file name calls its subject: "2 polar_bear-3" is the second subject, "polar bear".

    Accents are composed, as people type them; a Mac's file names have them apart.
    """
    words = re.sub(r"[ _-]+\d+$", "", re.sub(r"^\d+[ _-]+", "", unicodedata.normalize("NFC", stem)))
    return " ".join(words.replace("_", " ").split())


def _triplet(name: str, folder: Path, files: Sequence[Path], flat: bool, faults: list[str]) -> RawTriplet | None:
    before, where = len(faults), folder if not flat else f"{folder}, {name}_*"

    def stem_of(path: Path) -> str:
        match = _FLAT.fullmatch(path.stem) if flat else None
        return match["stem"] if match else path.stem

    # Sort the files into the target and its subjects.
    targets = [path for path in files if stem_of(path).lower() == TARGET]
    subjects = [path for path in files if path not in targets]
    if len(targets) != 1:
        faults.append(f"{where}: expected one picture named target, found {len(targets)}.")
    if not 1 <= len(subjects) <= _MOST_SUBJECTS:
        faults.append(
            f"{where}: expected 1 to {_MOST_SUBJECTS} pictures of single subjects beside the target, each named after "
            f'its subject ("polar bear.png"), found {len(subjects)}.'
        )

    # Name the subjects by their files, and decode every picture once.
    name_of = {path: subject_name(stem_of(path)) for path in subjects}
    for path, words in name_of.items():
        if not re.search(r"[^\W\d_]", words) or "." in words:
            faults.append(f'{path}: "{words}" names no subject; call the file what it shows, e.g. "wolf.png".')
    for path in (*targets, *subjects):
        try:
            image = open_image(path)
            if min(image.size) < _SMALLEST:
                faults.append(
                    f"{path}: expected {_SMALLEST} pixels a side or more, got {image.width} x {image.height}."
                )
        except ValueError as error:
            faults.append(str(error))

    # The folder's texts give the order, the sentence and the origin.
    texts = {} if flat else _texts(folder, faults)
    subjects = _ordered(subjects, name_of, texts, folder, faults)
    if len(faults) > before:
        return None
    names = tuple(name_of[path] for path in subjects)
    return RawTriplet(name, targets[0], tuple(subjects), names, texts.get("prompt", ""), texts.get("origin", {}))


def _texts(folder: Path, faults: list[str]) -> dict[str, Any]:
    """Read prompt.txt, subjects.txt and origin.json of a folder, each where it is there."""
    texts: dict[str, Any] = {"prompt": "", "subjects": "", "origin": {}}
    for key in texts:
        path = folder / (f"{key}.json" if key == "origin" else f"{key}.txt")
        try:
            if path.is_file():
                texts[key] = read_json_object(path) if key == "origin" else _composed(path)
        except ValueError as error:
            faults.append(str(error))
    texts["prompt"] = " ".join(texts["prompt"].split())
    return texts


def _composed(path: Path) -> str:
    """Read a text, its accents composed as those of the subjects' names."""
    return unicodedata.normalize("NFC", read_text(path).strip())


def _ordered(
    subjects: Sequence[Path], name_of: dict[Path, str], texts: dict[str, Any], folder: Path, faults: list[str]
) -> list[Path]:
    """Put subjects in the order of subjects.txt, else of prompt.txt, else of their files' names."""
    listed_names = [" ".join(line.split()) for line in texts.get("subjects", "").splitlines() if line.strip()]
    remaining = sorted(subjects)
    if listed_names:
        if sorted(listed_names) != sorted(name_of.values()):
            faults.append(
                f"{folder / 'subjects.txt'}: expected the subjects {', '.join(sorted(name_of.values()))}, one a line, "
                f"got {', '.join(listed_names)}."
            )
            return remaining
        return [
            remaining.pop(next(i for i, path in enumerate(remaining) if name_of[path] == name)) for name in listed_names
        ]
    prompt = texts.get("prompt", "").lower()
    places = {path: prompt.find(name_of[path].lower()) for path in remaining}
    all_named = prompt and min(places.values(), default=-1) >= 0
    return sorted(remaining, key=lambda path: places[path]) if all_named else remaining
