"""Every family of reference models is named wherever users read which there are."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "nodes" / "host_comfy" / "references" / "families.py"


def titles() -> list[str]:
    """Models by the rows of FAMILIES, read without importing it (it needs ComfyUI)."""
    rows = [
        node
        for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Family"
    ]
    models = [next((word.value for word in row.keywords if word.arg == "models"), row.args[0]) for row in rows]
    return [title for value in models for title in ast.literal_eval(value).split(", ")]


def described(locale: str) -> str:
    """The node's description in a language."""
    nodes = json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    return nodes["RelateReferenceRegions"]["description"]


@pytest.mark.parametrize("title", titles())
def test_a_family_is_named_wherever_users_read(title):
    texts = {
        file: (ROOT / file).read_text(encoding="utf-8")
        for file in ("nodes/reference_regions.py", "web/docs/RelateReferenceRegions.md", "README.md")
    }
    texts |= {f"locales/{locale}": described(locale) for locale in ("zh", "ja")}
    assert [where for where, text in texts.items() if title.lower() not in text.lower()] == []


def test_the_rows_are_read():
    assert len(titles()) >= 11 and {"Flux.2", "LongCat", "Bernini"} <= set(titles())
