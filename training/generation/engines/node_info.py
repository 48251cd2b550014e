"""Nodes of a ComfyUI (`GET /object_info`), and the faults of a template that it cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...common.comfyui_graph import choices_of
from ..template import Template

_SHOWN = 5  # choices of a list that a message names


class NodeInfo:
    """The nodes of one server.

    Args:
        info: its answer.
        server: address and version, for messages.
    """

    def __init__(self, info: Mapping[str, Any], server: str) -> None:
        self.info, self.server = info, server

    def required(self, class_type: str, name: str) -> bool:
        """Return whether an input must have a value."""
        return name in self.info.get(class_type, {}).get("input", {}).get("required", {})

    def faults(self, template: Template) -> list[str]:
        """List what of a template this server cannot run, one sentence each."""
        unknown = sorted({node["class_type"] for node in template.graph.values()} - set(self.info))
        if unknown:
            names = ", ".join(f'"{name}"' for name in unknown)
            return [
                f"{template.path}: {self.server} does not know {names}. Update it, install the pack that has it, or "
                "use another template."
            ]
        filled = {node for place, nodes in template.places.items() if place.startswith("image") for node in nodes}
        faults = []
        for node, entry in template.graph.items():
            for name, value in entry["inputs"].items():
                offered = choices_of(self.info[entry["class_type"]], name)
                if offered is None or isinstance(value, list) or node in filled or str(value) in offered:
                    continue
                faults.append(
                    f"{template.path}: {self.server} refuses node {node} {entry['class_type']}: {name} "
                    f'"{value}" is not in its list ({_few(offered)}). Put the file into its models folder, or name '
                    "another in the template."
                )
        return faults


def _few(choices: list[str]) -> str:
    if not choices:
        return "the list is empty"
    return ", ".join(choices[:_SHOWN]) + (f" and {len(choices) - _SHOWN} more" if len(choices) > _SHOWN else "")
