"""What every node has beside its class: a row in the README, and its sockets in the stable surface."""

import ast
from pathlib import Path

import pytest

from tests.surface import pinned

ROOT = Path(__file__).resolve().parents[2]


def groups() -> dict[str, tuple[str, ...]]:
    """GROUPS of nodes/__init__.py, which only a ComfyUI can import."""
    for statement in ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "GROUPS":
            return ast.literal_eval(statement.value)
    raise AssertionError("nodes/__init__.py has no GROUPS")


NODES = [name for names in groups().values() for name in names]


def test_a_class_of_the_groups_files_is_in_its_group():
    for group, names in groups().items():
        tree = ast.parse((ROOT / "nodes" / f"{group}.py").read_text(encoding="utf-8"))
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Relate")]
        assert sorted(classes) == sorted(names), f"nodes/{group}.py"


@pytest.mark.parametrize("node_id", NODES)
def test_the_readme_says_what_it_does(node_id):
    title = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| **")]
    assert any(f"**{title}**" in row for row in rows), f"README.md: no row of the node table names **{title}**"


@pytest.mark.parametrize("node_id", NODES)
def test_its_sockets_are_in_the_stable_surface(node_id):
    assert node_id in pinned("nodes"), "record it: COMFYUI_PATH=... python -m tests.record_surface nodes"
