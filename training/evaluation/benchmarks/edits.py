"""Sets of instructions with several pictures: PSRBench, MultiBanana, OmniContext."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from core import user_files

from ...common.errors import UserErrors
from .lines import PICTURES, Case, picture_like, read_json, read_text_file

PSR_PARTS = ("attribute", "action", "background", "position", "complex", "three", "four")


def psrbench(folder: Path) -> list[Case]:
    """One JSON list for each part (`attribute.json` ... `four.json`) in the folder or below it; paths are relative to
    the folder."""
    files = {
        path.stem: path for path in user_files.visible_files(folder, {".json"}, deep=True) if path.stem in PSR_PARTS
    }
    if not files:
        raise UserErrors(
            f"--from {folder}: expected PSRBench's lists, {', '.join(f'{part}.json' for part in PSR_PARTS)}; "
            "found none."
        )
    cases = []
    for part in (part for part in PSR_PARTS if part in files):
        for number, item in enumerate(read_json(files[part])):
            inputs = item.get("input_paths") or item["input_path"]
            inputs = [inputs] if isinstance(inputs, str) else inputs
            names = [item[key] for key in (f"category{place}" for place in range(1, len(inputs) + 1)) if key in item]
            result = PurePosixPath(item["result_path"]).name if item.get("result_path") else f"{number:04d}.png"
            cases.append(
                Case(
                    id=f"{part}-{number}",
                    picture=f"{part}/{result}",
                    prompt=item["instruction"],
                    task=part,
                    references=tuple(picture_like(folder / path) for path in inputs),
                    names=tuple(names) if len(names) == len(inputs) else (),
                )
            )
    return cases


def multibanana(folder: Path) -> list[Case]:
    """Read `{task}/{id}_0.jpg`, `{id}_1.jpg` ..., `{id}_prompt.txt`; references begin at 0."""
    prompts = [
        path for path in user_files.visible_files(folder, {".txt"}, deep=True) if path.name.endswith("_prompt.txt")
    ]
    if not prompts:
        raise UserErrors(f"--from {folder}: expected MultiBanana's folders with <id>_prompt.txt and <id>_0.jpg.")
    cases, faults = [], []
    for path in prompts:
        name = path.name.removesuffix("_prompt.txt")
        references = []
        while (picture := _numbered(path.parent, name, len(references))) is not None:
            references.append(picture)
        if not references:
            faults.append(f"{path.parent / name}_0.jpg is missing.")
        task = path.parent.relative_to(folder).as_posix()
        cases.append(
            Case(
                id=f"{task}/{name}",
                picture=f"{task}/{name}_generated.jpg",
                references=tuple(references),
                prompt=read_text_file(path).strip(),
                task=task,
            )
        )
    if faults:
        raise UserErrors(faults)
    return cases


def _numbered(folder: Path, name: str, number: int) -> Path | None:
    return next(
        (path for suffix in (".jpg", *PICTURES) if (path := folder / f"{name}_{number}{suffix}").is_file()), None
    )


def omnicontext(folder: Path) -> list[Case]:
    """Read `*.jsonl` with `key`, `task_type`, `instruction`, `input_images` (file names, relative to the folder).

    The hub holds the set as parquet; its rows written as JSON lines, with the pictures saved as files, are read.
    Only English instructions are taken.
    """
    files = user_files.visible_files(folder, {".jsonl"})
    if not files:
        raise UserErrors(
            f"--from {folder}: expected OmniContext as JSON lines (*.jsonl with key, task_type, instruction, "
            "input_images) beside its pictures; found none."
        )
    cases, faults = [], []
    for path in files:
        for number, line in enumerate(read_text_file(path).splitlines(), 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                faults.append(f"{path}, line {number}: not JSON ({error}).")
                continue
            if row and row.get("instruction_language", "en") == "en":
                cases.append(
                    Case(
                        id=f"{row['task_type']}/{row['key']}",
                        picture=f"{row['task_type']}/{row['key']}.png",
                        prompt=row["instruction"],
                        task=row["task_type"],
                        references=tuple(picture_like(folder / name) for name in row["input_images"]),
                    )
                )
    if faults:
        raise UserErrors(faults)
    return cases
