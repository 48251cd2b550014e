"""MS-Bench (MS-Diffusion): 40 pictures in 7 categories, every combination of 13 kinds, with boxes."""

from __future__ import annotations

import ast
from itertools import combinations, groupby, product
from pathlib import Path
from typing import Any

from ...common.errors import UserErrors
from .lines import Case, pictures_in, read_text_file

_FACTS = ("data_class_dict", "subject_combination_boxes", "subject_combination_prompts")


def msbench(folder: Path) -> list[Case]:
    """Read `msdiffusion/dataset/prompts/msbench.py` (as data, never run) and `msbench/<category>/<name>.*`.

    Args:
        folder: the root of MS-Diffusion's repository, or of its data set on the hub with `msbench.py` in it.
    """
    places = (folder / "msdiffusion" / "dataset" / "prompts" / "msbench.py", folder / "msbench.py")
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise UserErrors(f"--from {folder}: expected msdiffusion/dataset/prompts/msbench.py, or msbench.py.")
    facts = literals(read_text_file(path), path)
    lacking = [name for name in _FACTS if name not in facts]
    if lacking:
        raise UserErrors(f"{path}: expected {', '.join(lacking)}.")
    pictures = folder / "msbench" if (folder / "msbench").is_dir() else folder
    classes, boxes, prompts = (facts[name] for name in _FACTS)
    cases = []
    for kind, kind_boxes in boxes.items():
        for files in _groups(pictures, kind.split("_")):
            names = tuple(classes.get(path.stem, path.stem) for path in files)
            for number, prompt in enumerate(prompts[kind]):
                name = "-".join(path.stem for path in files)
                cases.append(
                    Case(
                        id=f"{kind}/{name}/{number}",
                        picture=f"{kind}_{name}_{number}_{{k}}.png",
                        prompt=prompt.format(*names),
                        references=files,
                        names=names,
                        task=kind,
                        boxes=tuple(tuple(map(float, box)) for box in kind_boxes),
                    )
                )
    return cases


def _groups(folder: Path, categories: list[str]) -> list[tuple[Path, ...]]:
    """Return combinations within a category, products of different ones.

    "living_living" never pairs a dog with itself.
    """
    parts = [
        list(combinations(pictures_in(folder / category), len(list(same)))) for category, same in groupby(categories)
    ]
    return [tuple(path for part in chosen for path in part) for chosen in product(*parts)]


def literals(text: str, path: Path) -> dict[str, Any]:
    """Read the plain values that a Python file assigns to names; nothing is executed.

    Raises:
        UserErrors: no Python.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserErrors(f"{path}: cannot be read ({error}).") from error
    facts: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                facts[node.targets[0].id] = _literal(node.value, facts)
            except ValueError:
                continue  # computed; not needed as data
    return facts


def _literal(node: ast.expr, facts: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name) and node.id in facts:
        return facts[node.id]
    if isinstance(node, ast.Dict):
        return {_literal(key, facts): _literal(value, facts) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.List):
        return [_literal(item, facts) for item in node.elts]
    return ast.literal_eval(node)
