"""Documentation is true: what a docstring or a text names exists."""

import ast
import re
import subprocess

import pytest

from tests.surface import ROOT

SOURCES = sorted(path for room in ("core", "nodes", "training", "scripts") for path in (ROOT / room).rglob("*.py"))
TEXTS = [
    ROOT / name
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml")
]
# Files of ours as texts cite them: a folder of the repository, slashes, an ending.
CITED = re.compile(
    r"(?<![\w/.<{-])(?:core|nodes|training|tests|scripts|web|workflows|models|locales|docs)"
    r"/[\w./-]+\.(?:py|md|json|toml|js|jpg|png|html|safetensors)\b"
)
MADE = ("models/miniworld/flux/", "models/relate/", "models/loras/")  # folders of a ComfyUI, or written by a command


def attributes_named(docstring):
    """Names under "Attributes:" of a docstring; several may share a line."""
    section = re.search(r"^ *Attributes:\n((?:(?: {8,}.*)?\n)+)", docstring + "\n", re.MULTILINE)
    for line in section.group(1).splitlines() if section else ():
        if match := re.match(r" {4,8}((?:[a-z_]\w*)(?:, [a-z_]\w*)*): ", line):
            yield from match.group(1).split(", ")


def fields_of(kind):
    """Names that a class or one of its methods binds: annotated, assigned, properties, and attributes of self."""
    for node in ast.walk(kind):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


@pytest.mark.parametrize("room", ["core", "nodes", "training"])
def test_attributes_that_a_docstring_names_are_there(room):
    untrue = []
    for path in (path for path in SOURCES if path.relative_to(ROOT).parts[0] == room):
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(kind, ast.ClassDef) and (text := ast.get_docstring(kind, clean=False)):
                known = set(fields_of(kind))
                untrue += [
                    f"{path.relative_to(ROOT)}:{kind.lineno} {kind.name} has no {name}"
                    for name in attributes_named(text)
                    if name not in known
                ]
    assert untrue == []


def test_arguments_that_a_docstring_names_are_there():
    untrue = []
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.FunctionDef) or not (text := ast.get_docstring(call, clean=False)):
                continue
            section = re.search(r"^( *)Args:\n((?:\1 {4,}.*\n|\n)+)", text + "\n", re.MULTILINE)
            inside = section.group(1) + " " * 4 if section else ""
            spec = call.args
            known = {
                each.arg for each in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg) if each
            }
            for line in section.group(2).splitlines() if section else ():
                if match := re.match(rf"{inside}(\w+(?:, \w+)*): ", line):
                    untrue += [
                        f"{path.relative_to(ROOT)}:{call.lineno} {call.name} takes no {name}"
                        for name in match.group(1).split(", ")
                        if name not in known
                    ]
    assert untrue == []


def test_files_that_texts_and_comments_cite_are_there():
    tracked = set(
        subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    )
    absent = []
    for path in (*SOURCES, *TEXTS, *(ROOT / "web" / "docs").glob("*.md"), *(ROOT / "training").rglob("*.toml")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            absent += [
                f"{path.relative_to(ROOT)}:{number} cites {cited}"
                for cited in CITED.findall(line)
                if cited not in tracked
                and not (ROOT / cited).exists()
                and not cited.startswith(MADE)
                and not cited.split("/")[-1].split(".")[0].isupper()
            ]  # NODE.md stands for any node's
    assert absent == []


def test_definitions_that_texts_place_in_a_file_are_there():
    """`folder/file.py: name` means a function or a class of that file."""
    placed, absent = re.compile(r"`([\w/]+\.py): (\w+)`"), []
    found = 0
    for path in (*TEXTS, *(ROOT / "docs").glob("*.md")):
        for file, name in placed.findall(path.read_text(encoding="utf-8")):
            if not (ROOT / file).exists():
                continue  # a place in ComfyUI, which tests/unit/test_host_map.py looks after
            found += 1
            defined = {
                node.name
                for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            }
            if name not in defined:
                absent.append(f"{path.name}: {file} defines no {name}")
    assert found and absent == []
