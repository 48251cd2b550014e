"""List the models that a graph names, and their licences, if known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tomllib

UNKNOWN = "not known"
_TABLE = Path(__file__).with_name("licences.toml")
_WEIGHTS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".onnx")


@cache
def _entries() -> list[dict[str, str]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))["model"]


def licence_of(file: str) -> tuple[str, str]:
    """Look up a model by its file's name: licence ("not known" otherwise), and a note to print."""
    name = file.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    entry = next((entry for entry in _entries() if re.search(entry["pattern"], name, re.IGNORECASE)), None)
    return (entry["licence"], entry.get("note", "")) if entry else (UNKNOWN, "")


def models_of(graph: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the weight files in a graph, and of loaders that come with their own."""
    files = [
        value
        for node in graph.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.lower().endswith(_WEIGHTS)
    ]
    loaders = [kind for node in graph.values() if (kind := node["class_type"]).startswith("RelateMiniworld")]
    return list(dict.fromkeys([*files, *loaders]))


def origin_models(files: Iterable[str]) -> list[dict[str, str]]:
    """Describe each model with its licence, for the files."""
    return [{"file": file, "licence": licence_of(file)[0]} for file in dict.fromkeys(files)]


def joined_licence(models: Iterable[Mapping[str, str]]) -> str:
    """Join all licences in one text, each once; models without a known one do not hide behind the others."""
    return "; ".join(dict.fromkeys(model["licence"] for model in models))


def notes(files: Iterable[str]) -> list[str]:
    """List the notes to print about these models, each once."""
    return list(dict.fromkeys(note for file in files if (note := licence_of(file)[1])))
