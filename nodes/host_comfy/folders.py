"""Folders of files: ``models/relate`` and ``models/loras`` of ComfyUI, and the pack's own ``models/miniworld``."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from pathlib import Path

import folder_paths

from ...core.checkpoint import read_metadata

log = logging.getLogger(__name__)

RELATE = "relate"
NO_FILE = "no file yet"
MINIWORLD = Path(__file__).resolve().parents[2] / "models" / "miniworld"
CREATURES = MINIWORLD / "creatures"


def register() -> None:
    """Make and register ``models/relate``, and list the miniworld's relations and subject adapters among the files.

    Folders that extra_model_paths.yaml added under the same names are kept, and come first.
    """
    default = os.path.join(folder_paths.models_dir, RELATE)
    try:
        os.makedirs(default, exist_ok=True)
    except OSError as error:  # a models folder that cannot be written to is no reason to be without nodes
        log.warning(
            "Relate: %s could not be made (%s); put identity models where extra_model_paths.yaml says.", default, error
        )
    paths, endings = folder_paths.folder_names_and_paths.get(RELATE, ([], set()))
    if default not in paths:
        paths = [*paths, default]
    folder_paths.folder_names_and_paths[RELATE] = (paths, set(endings) | set(folder_paths.supported_pt_extensions))
    folder_paths.add_model_folder_path("loras", str(MINIWORLD / "relations"))
    folder_paths.add_model_folder_path(RELATE, str(MINIWORLD / "relate"))


def below_output(name: str) -> Path:
    """Resolve a folder below ComfyUI's output folder.

    Raises:
        ValueError: no name, or a place outside.
    """
    root = Path(folder_paths.get_output_directory()).resolve()
    place = (root / name.strip().replace("\\", "/")).resolve()
    if not name.strip() or place == root or not place.is_relative_to(root):
        raise ValueError(
            f"folder: expected a folder below ComfyUI's output folder, e.g. 'relate/hugging', got '{name}'."
        )
    return place


def choices(files: list[str]) -> list[str]:
    """List files as a widget's options; an empty list gives one entry that says so, for its node to explain."""
    return files or [NO_FILE]


def identity_files() -> list[str]:
    """List the files of ``models/relate``."""
    return folder_paths.get_filename_list(RELATE)


def lora_files() -> list[str]:
    """List the files of ``models/loras`` and the miniworld's relations."""
    return folder_paths.get_filename_list("loras")


def relation_files() -> tuple[list[str], dict[str, str]]:
    """List the same files with relation LoRAs first.

    Returns:
        names, and the example prompt of each file that has one.
    """
    names = lora_files()
    headers = {
        name: header
        for name in names
        if (header := _relation_header(folder_paths.get_full_path("loras", name))) is not None
    }
    examples = {name: header["example_prompt"] for name, header in headers.items() if header.get("example_prompt")}
    return [*headers, *(name for name in names if name not in headers)], examples


def _relation_header(path: str | None) -> dict[str, str] | None:
    """Read the metadata of a relation LoRA; None for any other file. Reads the header alone, once per file version."""
    if path is None:
        return None
    try:
        stat = os.stat(path)
        return _read_relation_header(path, stat.st_mtime_ns, stat.st_size)
    except OSError:  # a file that may not be read, or is gone by now, hides no other; choosing it says so
        return None


@lru_cache(maxsize=4096)
def _read_relation_header(path: str, changed: int, size: int) -> dict[str, str] | None:
    try:
        metadata = read_metadata(path)
    except ValueError:  # a broken file stays in the list; choosing it says what is wrong with it
        return None
    return metadata if metadata.get("kind") == "relation" else None


def identity_path(name: str) -> str:
    """Resolve the path of a file of ``models/relate``."""
    return folder_paths.get_full_path_or_raise(RELATE, name)


def lora_path(name: str) -> str:
    """Resolve the path of a file that `lora_files` lists."""
    return folder_paths.get_full_path_or_raise("loras", name)


def creatures() -> list[str]:
    """List the pack's pictures of creatures by name; the species is the word before the first hyphen."""
    return sorted(path.stem for path in CREATURES.glob("*.png"))


def creature_path(name: str) -> Path:
    """Resolve the path of a creature's picture.

    Raises:
        ValueError: `creatures` lacks the name (ComfyUI lets it through).
    """
    if name not in creatures():
        raise ValueError(f"creature: expected one of {', '.join(creatures())}; got '{name}'.")
    return CREATURES / f"{name}.png"
