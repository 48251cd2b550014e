"""Sets with people: XVerseBench (bytedance/XVerse) and MultiHuman-Testbench (Qualcomm-AI-research)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.errors import UserErrors
from .lines import Case, picture_like, read_json


def xversebench(folder: Path) -> list[Case]:
    """Read `eval/tools/XVerseBench_single.json` and `_multi.json`, with their `_DSG.json` where they are.

    Args:
        folder: the root of the XVerse repository; picture paths are relative to it.
    """
    paths = {part: folder / "eval" / "tools" / f"XVerseBench_{part}.json" for part in ("single", "multi")}
    paths = {part: path for part, path in paths.items() if path.is_file()}
    if not paths:
        raise UserErrors(
            f"--from {folder}: expected the root of bytedance/XVerse with eval/tools/XVerseBench_single.json "
            "or XVerseBench_multi.json."
        )
    cases = []
    for part, path in paths.items():
        graphs = path.with_name(f"XVerseBench_{part}_DSG.json")
        questions = read_json(graphs) if graphs.is_file() else {}
        for position, sample in enumerate(read_json(path)):
            index = sample.get("index", position)
            inputs = sample["modulation"][0]["src_inputs"]
            cases.append(
                Case(
                    id=f"{part}-{index}",
                    picture=f"{part}/{index}_{{k}}.png",
                    prompt=sample["prompt"],
                    references=tuple(picture_like(folder / one["image_path"]) for one in inputs),
                    names=tuple(one["caption"] for one in inputs),
                    task=part,
                    questions=dsg_questions(_graph(questions, index, position)),
                )
            )
    return cases


def _graph(graphs: Any, index: Any, position: int) -> Mapping[str, Any]:
    """Return the DSG of one case: by index in an object, by position in a list."""
    if isinstance(graphs, Mapping):
        return graphs.get(str(index), {})
    return graphs[position] if position < len(graphs) else {}


def dsg_questions(graph: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Read the questions of a DSG (arXiv:2310.18235) in an order in which parents come first; parent 0 is none."""
    texts = graph.get("qid2question", {})
    parents = {
        number: [
            str(parent)
            for parent in graph.get("qid2dependency", {}).get(number, [])
            if str(parent) in texts and str(parent) != number
        ]
        for number in texts
    }
    order: list[str] = []
    while len(order) < len(texts):
        ready = [number for number in texts if number not in order and all(one in order for one in parents[number])]
        order += ready or [number for number in texts if number not in order][:1]  # a circle is cut
    place = {number: index for index, number in enumerate(order)}
    return tuple(
        {
            "text": texts[number],
            "wanted": True,
            "parents": [place[parent] for parent in parents[number] if place[parent] < place[number]],
        }
        for number in order
    )


def multihuman(folder: Path) -> list[Case]:
    """Read `data/multihuman_metadata.json`: a list whose positions are the pictures' names.

    Args:
        folder: the root of the repository; faces must have been downloaded, by `data_generation/download_faces.py`.
    """
    return [
        Case(
            id=str(position),
            picture=f"{position}.png",
            prompt=sample["prompt"],
            references=tuple(picture_like(folder / _path(one)) for one in _items(sample["people"])),
            names=_names(sample, len(_items(sample["people"]))),
            questions=tuple({"text": text, "wanted": True} for text in _texts(sample.get("vlm_questions", ()))),
            task=str(len(_items(sample["people"]))),
        )
        for position, sample in enumerate(_samples(read_json(folder / "data" / "multihuman_metadata.json")))
    ]


def _samples(whole: Any) -> Sequence[Mapping[str, Any]]:
    return list(whole.values()) if isinstance(whole, Mapping) else whole


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else list(value)


def _path(one: Any) -> str:
    return one if isinstance(one, str) else one.get("image_path") or one["path"]


def _names(sample: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Return one name for each person; nothing where the set has another number of names."""
    identifiers = sample.get("identifier", ())
    names = [identifiers] if isinstance(identifiers, str) else [str(one) for one in _items(identifiers)]
    if len(names) == 1 and count > 1:
        names *= count
    return tuple(names) if len(names) == count else ()


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in _items(value)]
