"""Write cases of a benchmark as lines of a prompts file: every missing file in one report, subsets that are nested."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import user_files

from ...common.errors import UserErrors

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Case:
    """One case of a benchmark.

    Attributes:
        id: unique within the set.
        picture: name of the generated picture; `{k}` stands for the number of the seed, from 0.
        prompt: the prompt or instruction.
        references: the photograph of each subject.
        names: each subject's name; may be empty.
        views: all photographs of each subject; may be empty.
        boxes: box of each subject; may be empty.
        relation: the predicate; may be empty.
        task: part of the benchmark; may be empty.
        questions: objects with `text`, `wanted` and `parents`; see `prompts.Question`.
        symmetric: see `prompts.Entry`.
    """

    id: str
    picture: str
    prompt: str
    references: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    views: tuple[tuple[Path, ...], ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    relation: str = ""
    task: str = ""
    questions: tuple[dict[str, Any], ...] = ()
    symmetric: bool | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def read_json(path: Path) -> Any:
    """Return a JSON file.

    Raises:
        UserErrors: it is missing, or no JSON.
    """
    try:
        return user_files.read_json(path)
    except ValueError as error:
        raise UserErrors(f"{path}: expected a JSON file of the benchmark ({error}).") from error


def read_text_file(path: Path) -> str:
    """Return a text file.

    Raises:
        UserErrors: it is missing, or no UTF-8.
    """
    try:
        return user_files.read_text(path)
    except ValueError as error:
        raise UserErrors(f"{path}: expected a text file of the benchmark ({error}).") from error


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """List the pictures of a folder by name; none if there is no such folder."""
    return tuple(user_files.visible_files(folder, PICTURES))


def picture_like(path: Path) -> Path:
    """Return a picture under the name given or with another picture's suffix: benchmarks mix .jpg and .png."""
    if path.is_file():
        return path
    return next((other for suffix in PICTURES if (other := path.with_suffix(suffix)).is_file()), path)


def subset(cases: Sequence[Case], limit: int | None) -> list[Case]:
    """Return a fixed pseudo-random subset in the original order; that of 50 is a part of that of 100."""
    if limit is None or limit >= len(cases):
        return list(cases)
    ranked = sorted(cases, key=lambda case: hashlib.sha256(case.id.encode()).hexdigest())
    chosen = {case.id for case in ranked[:limit]}
    return [case for case in cases if case.id in chosen]


def check_cases(cases: Sequence[Case], source: Path) -> None:
    """Check that every case is unique and every file is there.

    Raises:
        UserErrors: no case, two cases of one id, missing files.
    """
    if not cases:
        raise UserErrors(f"--from {source}: no case of this benchmark in it.")
    ids: set[str] = set()
    faults = []
    for case in cases:
        if case.id in ids:
            faults.append(f"case {case.id}: there are two of this name.")
        ids.add(case.id)
    files = dict.fromkeys(
        file for case in cases for file in (*case.references, *(view for views in case.views for view in views))
    )
    faults += [f"{file} is missing." for file in files if not file.is_file()]
    if faults:
        raise UserErrors(faults)


def prompts_lines(cases: Sequence[Case], name: str, beside: Path, seeds: int) -> str:
    """Return the prompts file.

    Args:
        cases: checked.
        name: of the set.
        beside: folder the file will be in; files are written relative to it.
        seeds: pictures of each case.
    """
    lines = []
    for case in cases:
        parts = {
            "relation": case.relation,
            "names": list(case.names),
            "boxes": [list(box) for box in case.boxes],
            "references": [relative(path, beside) for path in case.references],
            "views": [[relative(path, beside) for path in views] for views in case.views],
            "questions": list(case.questions),
            "task": case.task,
        }
        for seed in range(seeds):
            line = {
                "picture": picture_name(case.picture, seed, seeds),
                "prompt": case.prompt,
                "id": case.id,
                "set": name,
                **{key: value for key, value in parts.items() if value},
                "seed": seed,
            }
            if case.symmetric is not None:
                line["symmetric"] = case.symmetric
            lines.append(json.dumps({**line, **case.extra}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def picture_name(pattern: str, seed: int, seeds: int) -> str:
    """Return a picture's name: `{k}` replaced, or a number before the suffix where several seeds need one."""
    if "{k}" in pattern:
        return pattern.replace("{k}", str(seed))
    path = Path(pattern)
    return pattern if seeds == 1 else path.with_name(f"{path.stem}_{seed}{path.suffix}").as_posix()


def relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder; from one drive of Windows to another it stays whole."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()
