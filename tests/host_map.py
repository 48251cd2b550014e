"""The list in ARCHITECTURE.md of the places where the pack leans on ComfyUI, and what its code really names."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = "## Where the pack leans on ComfyUI"
# Top-level modules of ComfyUI; `comfy_api` is its promise to packs and is not listed.
COMFYUI = (
    "comfy",
    "comfy_execution",
    "comfy_extras",
    "comfyui_version",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "server",
)


@dataclass(frozen=True)
class Place:
    """One place.

    Attributes:
        text: a dotted name to import, `file: word`, or `page: expression`.
        seen_in: the one version it was seen in, or None for both.
    """

    text: str
    seen_in: str | None


def places() -> list[Place]:
    """Every place of the list, in order."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.split(SECTION + "\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [
        Place(place, None if seen_in == "both" else seen_in)
        for names, seen_in, *_ in rows
        for place in re.findall(r"`([^`]+)`", names)
    ]


def named_in_code() -> dict[str, str]:
    """Dotted names of ComfyUI that the pack's code uses, each with a file that does."""
    names: dict[str, str] = {}
    for path in sorted([*(ROOT / "nodes").rglob("*.py"), ROOT / "__init__.py"]):
        for name in _names(ast.parse(path.read_text(encoding="utf-8"))):
            names.setdefault(name, str(path.relative_to(ROOT)))
    return {name: file for name, file in names.items() if not any(other.startswith(f"{name}.") for other in names)}


def _names(tree: ast.Module) -> set[str]:
    """Attributes of what a file imports from ComfyUI, spelled out, and classes that it names in texts."""
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {
                each.asname or each.name.split(".")[0]: each.name if each.asname else each.name.split(".")[0]
                for each in node.names
                if each.name.split(".")[0] in COMFYUI
            }
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in COMFYUI:
            imported |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}

    def spelled(node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return imported.get(node.id)
        before = spelled(node.value) if isinstance(node, ast.Attribute) else None
        return before and f"{before}.{node.attr}"

    used = {spelled(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    classes = {text for text in texts if re.fullmatch(r"comfy(\.\w+){2,}", text)}
    classes |= {f"comfy_extras.{text}" for text in texts if re.fullmatch(r"nodes_\w+\.[A-Z]\w+", text)}
    return ({name for name in imported.values() if "." in name} | used | classes) - {None}


def named_on_the_page() -> dict[str, str]:
    """What the pack's scripts use of the page's `app` and `api`, each with a file that does."""
    names: dict[str, str] = {}
    for path in sorted((ROOT / "web").glob("*.js")):
        text = re.sub(r"//.*|import .*", "", path.read_text(encoding="utf-8"))
        for name in re.findall(r"(?<![.\w])(?:app|api)(?:\??\.\w+)+", text):
            names.setdefault(name.replace("?", ""), path.name)
    return names
