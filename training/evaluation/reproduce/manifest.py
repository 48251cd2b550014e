"""Everything a folder of pictures depends on, written beside it; no table mixes pictures of two manifests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...common.atomic_io import write_text
from ...common.errors import UserErrors
from ..prompts import Entry
from .settings import DrawingSettings

FORMAT = 1
_BLOCK = 1 << 20


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def build_manifest(
    prompts: Path,
    entries: Sequence[Entry],
    methods: Sequence[str],
    settings: DrawingSettings,
    engine: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Return the manifest of a run.

    Args:
        prompts: the prompts file.
        entries: its lines.
        methods: names.
        settings: how pictures are drawn.
        engine: facts of the engine: its kind and versions.
        weights: for each method the hashes of the weight files that it uses, by name; a file that cannot be read from
            here (on another machine) has an empty hash.
    """
    photographs: dict[str, list[str]] = {}  # sets of subjects have a 00.jpg in each folder
    for path in dict.fromkeys(path for entry in entries for path in entry.references):
        photographs.setdefault(path.name, []).append(file_hash(path))
    return {
        "format": FORMAT,
        "prompts": file_hash(prompts),
        "photographs": {name: hashes[0] if len(hashes) == 1 else hashes for name, hashes in photographs.items()},
        "settings": asdict(settings),
        "engine": dict(engine),
        "methods": {method: dict(weights[method]) for method in methods},
    }


def method_hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Hash everything each method's pictures depend on; other methods may be added later."""
    common = {key: value for key, value in manifest.items() if key != "methods"}
    return {
        method: hashlib.sha256(json.dumps([common, facts], sort_keys=True).encode()).hexdigest()
        for method, facts in manifest["methods"].items()
    }


def merge_manifest(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest, or compare it with the existing one and add new methods to that.

    Raises:
        UserErrors: everything that differs, or a file that is no manifest.
    """
    merged = dict(manifest)
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            methods = dict(before["methods"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserErrors(f"{path}: is no manifest of a run ({error}). Choose another --out.") from error
        shared = {
            **manifest,
            "methods": {name: manifest["methods"].get(name, facts) for name, facts in methods.items()},
        }
        differing = list(differences(before, shared))
        if differing:
            raise UserErrors(
                [
                    f"{path}: {line}. The pictures there were drawn otherwise; choose another --out, or settings "
                    "as they were."
                    for line in differing
                ]
            )
        merged["methods"] = {**methods, **manifest["methods"]}
    write_text(path, json.dumps(merged, indent=1, sort_keys=True) + "\n")
    return merged


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List the leaves in which two manifests differ, in words."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{where}{key} ")]
    return [] if before == now else [f"{where.strip()} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
