"""What a ComfyUI says of its nodes (`GET /object_info`), and what a template asks of them that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        """Tell whether an input must have a value."""
        return name in self.info.get(class_type, {}).get("input", {}).get("required", {})

    def choices(self, class_type: str, name: str) -> list[str] | None:
        """List what a list input offers; None for an input that is no list, or whose list is not known here."""
        groups = self.info.get(class_type, {}).get("input", {})
        spec = next((own[name] for own in groups.values() if isinstance(own, Mapping) and name in own), None)
        if not spec:
            return None
        kind, *options = spec
        if isinstance(kind, list):
            return [str(choice) for choice in kind]
        offered = options[0].get("options") if kind == "COMBO" and options and isinstance(options[0], Mapping) else None
        return None if offered is None else [str(choice) for choice in offered]

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
        found = []
        for node, value in template.graph.items():
            for name, given in value["inputs"].items():
                offered = self.choices(value["class_type"], name)
                if offered is None or isinstance(given, list) or node in filled or str(given) in offered:
                    continue
                found.append(
                    f"{template.path}: {self.server} refuses node {node} {value['class_type']}: {name} "
                    f'"{given}" is not in its list ({_few(offered)}). Put the file into its models folder, or name '
                    "another in the template."
                )
        return found


def _few(choices: list[str]) -> str:
    if not choices:
        return "the list is empty"
    return ", ".join(choices[:_SHOWN]) + (f" and {len(choices) - _SHOWN} more" if len(choices) > _SHOWN else "")
