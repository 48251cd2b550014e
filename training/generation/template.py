"""A workflow in API format whose nodes' titles say where a request's words, pictures and numbers go.

Titles are set in ComfyUI's editor: `relate:prompt`, `relate:negative`, `relate:seed`, `relate:image1`, `relate:image2`
..., `relate:name1` ..., `relate:width`, `relate:height`, `relate:output`. One node may carry several ("relate:width
relate:height"), and several nodes the same. A place for a picture that a request does not bring is cut away with
everything that needs it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.user_files import read_json

from ..common.schema import did_you_mean
from .request import Request

Graph = dict[str, dict[str, Any]]
_TITLE = re.compile(r"relate:\s*(\w+)", re.IGNORECASE)
_SAVING = ("SaveImage", "PreviewImage")
_WORDS, _SIZES = ("text", "prompt", "value", "string"), ("value",)
# what each place sets: the first of these inputs that its node has
_INPUTS = {
    "prompt": _WORDS,
    "negative": _WORDS,
    "seed": ("seed", "noise_seed", "value"),
    "width": ("width", *_SIZES),
    "height": ("height", *_SIZES),
    "output": (),
    "image": ("image",),  # image1, image2 ...
    "name": ("name", *_WORDS),  # name1 ...: of the subject that picture shows or is to show
}
_NUMBERED = re.compile(r"(image|name)([1-9]\d?)")
NEEDED = ("prompt", "seed", "output")


@dataclass(frozen=True)
class Template:
    """One checked template.

    Attributes:
        path: of its file.
        graph: its nodes.
        places: place to ids of the nodes that carry it: "prompt", "image1", ..., "output".
        sha256: of the file.
    """

    path: Path
    graph: Graph
    places: Mapping[str, tuple[str, ...]]
    sha256: str

    def filled(self, request: Request, pictures: Mapping[int, str]) -> Graph:
        """Fill in the graph of a request, nothing cut away yet.

        Args:
            request: its words and numbers.
            pictures: for each place of a picture, from 1, the value of LoadImage's `image`.
        """
        values: dict[str, Any] = {
            "prompt": request.prompt,
            "seed": request.seed,
            "width": request.width,
            "height": request.height,
            **({"negative": request.negative} if request.negative else {}),
            **{f"image{number}": name for number, name in pictures.items()},
            **{f"name{number}": name for number, name in enumerate(_names(request), 1)},
        }
        graph = copy.deepcopy(self.graph)
        for place, value in values.items():
            for node in self.places.get(place, ()):
                graph[node]["inputs"][_input_of(place, graph[node]["inputs"])] = value
        return graph

    def surplus(self, images: int) -> list[str]:
        """List the nodes of places for pictures beyond a number."""
        numbers = {place: _NUMBERED.fullmatch(place) for place in self.places}
        return [
            node
            for place, match in numbers.items()
            if match and match[1] == "image" and int(match[2]) > images
            for node in self.places[place]
        ]


def read_template(path: Path, images: int) -> Template:
    """Read a template.

    Args:
        path: of a JSON file in API format.
        images: places for pictures that it must have.

    Raises:
        ValueError: not API format; a place is missing, unknown, or has nothing to set. All of it in one message.
    """
    graph = _read_graph(path)
    places: dict[str, list[str]] = {}
    faults = []
    for node, value in graph.items():
        notes = value.get("_meta")
        title = str(notes.get("title") or "") if isinstance(notes, dict) else ""
        for place in map(str.lower, _TITLE.findall(title)):
            if place in ("image", "name") or _kind(place) not in _INPUTS:
                known_places = [kind + "1" * (kind in ("image", "name")) for kind in _INPUTS]
                faults.append(f'node {node}, "relate:{place}": unknown. {did_you_mean(place, known_places)}')
            elif place != "output" and not _input_of(place, value["inputs"]):
                inputs = ", ".join(_INPUTS[_kind(place)])
                faults.append(f'node {node} ({value["class_type"]}), "relate:{place}": has no input of {inputs}.')
            else:
                places.setdefault(place, []).append(node)
    saving = [node for node, value in graph.items() if value["class_type"] in _SAVING]
    if "output" not in places and len(saving) == 1:
        places["output"] = saving
    needed = [*NEEDED, *(f"image{number}" for number in range(1, images + 1))]
    if missing := [f'"relate:{place}"' for place in needed if place not in places]:
        faults.append(
            f"no node titled {', '.join(missing)}. Title the nodes so in ComfyUI's editor and export again "
            "with Workflow > Export (API)."
        )
    if len(places.get("output", ())) > 1:
        faults.append(f'{len(places["output"])} nodes titled "relate:output"; expected one.')
    if faults:
        raise ValueError(f"{path}: {' '.join(faults)}")
    return Template(path, graph, {place: tuple(nodes) for place, nodes in places.items()}, _sha256(path))


def remove_nodes(graph: Graph, nodes: list[str], required: Callable[[str, str], bool]) -> Graph:
    """Remove nodes from a graph: a link to one is cut where the input is optional, else its node goes as well.

    Args:
        graph: in API format; not changed.
        nodes: ids to remove.
        required: whether an input of a class of nodes must have a value.
    """
    graph, to_remove = copy.deepcopy(graph), list(nodes)
    while to_remove:
        node = to_remove.pop()
        graph.pop(node, None)
        for other, value in graph.items():
            links = {name: link for name, link in value["inputs"].items() if isinstance(link, list)}
            for name in (name for name, link in links.items() if link[:1] == [node]):
                del value["inputs"][name]
                if required(value["class_type"], name) and other not in to_remove:
                    to_remove.append(other)
    return graph


def _read_graph(path: Path) -> Graph:
    """Read nodes by id.

    Raises:
        ValueError: not JSON, not a workflow, or one for the editor.
    """
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("prompt"), dict) and "class_type" not in value["prompt"]:
        value = value["prompt"]  # what POST /prompt takes
    if isinstance(value, dict) and isinstance(value.get("nodes"), list):
        raise ValueError(
            f"{path}: a workflow for the editor (nodes, links), expected the API format: Workflow > Export (API)."
        )
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path}: expected a workflow in API format (node ids to class_type and inputs).")
    for node, entry in value.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            raise ValueError(f'{path}: "{node}" has no class_type; expected the API format: Workflow > Export (API).')
        if not isinstance(entry.get("inputs"), dict):
            raise ValueError(f"{path}: node {node} ({entry['class_type']}) has no inputs; export the workflow again.")
    return value


def _kind(place: str) -> str:
    """Return "image" for "image2"; other places as they are."""
    match = _NUMBERED.fullmatch(place)
    return match[1] if match else place


def _names(request: Request) -> tuple[str, ...]:
    names = request.scene.names
    return names if request.subject is None else (names[request.subject],)


def _input_of(place: str, inputs: Mapping[str, Any]) -> str:
    return next((name for name in _INPUTS[_kind(place)] if name in inputs), "")


def _sha256(path: Path) -> str:
    return hashlib.sha256(json.dumps(read_json(path), sort_keys=True).encode()).hexdigest()
