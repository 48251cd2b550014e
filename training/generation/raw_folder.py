"""Hand raw pictures to the annotation: one folder for each attempt, written atomically."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .recipes import RawPictures
from .scenes import Scene

ORIGIN = "origin.json"


def is_written(raw: Path, scene: Scene, origin: Mapping[str, Any]) -> bool:
    """Return whether an attempt's folder exists and was drawn in the same way."""
    try:
        return json.loads((raw / scene.folder / ORIGIN).read_text(encoding="utf-8")) == dict(origin)
    except (OSError, ValueError):
        return False


def write_raw(
    raw: Path, scene: Scene, pictures: RawPictures, sentence: str, origin: Mapping[str, Any], workplace: Path
) -> None:
    """Write `target.png`, a picture named after each subject, their order, the sentence and the origin.

    Args:
        raw: receives a folder named `scene.folder`; an older one is replaced.
        scene, pictures: the attempt and its pictures.
        sentence: says the names and the relation.
        origin: of the pictures.
        workplace: a folder on the same disk for unfinished files.
    """
    part = workplace / f".{scene.folder}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    pictures.target.save(part / "target.png")
    for name, picture in zip(scene.names, pictures.subjects):
        picture.save(part / f"{name}.png")
    texts = {
        "subjects.txt": "\n".join(scene.names),
        "prompt.txt": sentence,
        ORIGIN: json.dumps(dict(origin), indent=1, ensure_ascii=False),
    }
    for name, text in texts.items():
        (part / name).write_text(text + "\n", encoding="utf-8")
    raw.mkdir(parents=True, exist_ok=True)
    final = raw / scene.folder
    shutil.rmtree(final, ignore_errors=True)
    part.replace(final)
