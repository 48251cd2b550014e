"""Graphs in API format, and what a finished one gave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .comfyui_errors import Graph


@dataclass(frozen=True)
class Finished:
    """A graph that ended well.

    Attributes:
        prompt_id: the server's id of the run.
        outputs: node id to what the node showed, e.g. `{"images": [{"filename", "subfolder", "type"}]}`.
        pictures: the files of the nodes asked for, in order.
        attempts: how often the graph was queued; 0 if the server had it done already.
    """

    prompt_id: str
    outputs: Mapping[str, Mapping[str, Any]]
    pictures: tuple[bytes, ...]
    attempts: int


def graph_hash(graph: Graph) -> str:
    """Hash a graph's contents with SHA-256, whatever the order of its keys and whatever its titles."""
    bare = {node: {"class_type": value["class_type"], "inputs": value["inputs"]} for node, value in graph.items()}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def images_of(outputs: Mapping[str, Mapping[str, Any]], nodes: Sequence[str]) -> list[Mapping[str, str]]:
    """Return the files that some nodes wrote, in the nodes' order."""
    return [image for node in nodes for image in outputs.get(node, {}).get("images", ())]


def choices_of(node: Mapping[str, Any], name: str) -> list[str] | None:
    """List what an input of a node offers.

    Args:
        node: its entry of `/object_info`.
        name: of the input.

    Returns:
        None for an input that is no list, whose list is not known here, or that takes files from other places as well:
        `LoadImage` lists the top of the input folder and opens pictures of sub-folders.
    """
    groups = [group for group in node.get("input", {}).values() if isinstance(group, Mapping)]
    kind, *more = next((group[name] for group in groups if name in group), None) or [""]
    options = more[0] if more and isinstance(more[0], Mapping) else {}
    if any(key.endswith("_upload") and value for key, value in options.items()):
        return None
    listed = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
    return None if listed is None else [str(choice) for choice in listed]
