"""Where files lie: ``models/relate`` and ``models/loras`` of ComfyUI, and the pack's own ``models/miniworld``."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

RELATE = "relate"
MINIWORLD = Path(__file__).resolve().parents[2] / "models" / "miniworld"
CREATURES = MINIWORLD / "creatures"


def register() -> None:
    """Make ``models/relate`` known, and the miniworld's relations among the LoRAs.

    Folders that extra_model_paths.yaml added under the same names are kept, and come first.
    """
    default = os.path.join(folder_paths.models_dir, RELATE)
    paths, endings = folder_paths.folder_names_and_paths.get(RELATE, ([], set()))
    if default not in paths:
        paths = [*paths, default]
    folder_paths.folder_names_and_paths[RELATE] = (paths, set(endings) | set(folder_paths.supported_pt_extensions))
    folder_paths.add_model_folder_path("loras", str(MINIWORLD / "relations"))


def identity_files() -> list[str]:
    """Names of the files in ``models/relate``."""
    return folder_paths.get_filename_list(RELATE)


def lora_files() -> list[str]:
    """Names of the files in ``models/loras`` and of the miniworld's relations."""
    return folder_paths.get_filename_list("loras")


def identity_path(name: str) -> str:
    """Full path of a file of ``models/relate``."""
    return folder_paths.get_full_path_or_raise(RELATE, name)


def lora_path(name: str) -> str:
    """Full path of a file that `lora_files` names."""
    return folder_paths.get_full_path_or_raise("loras", name)


def creatures() -> list[str]:
    """Names of the pictures of creatures that come with the pack; the species is the word before the first hyphen."""
    return sorted(path.stem for path in CREATURES.glob("*.png"))


def creature_path(name: str) -> Path:
    """The picture of a creature. Raises ValueError for a name that `creatures` lacks (ComfyUI lets it through)."""
    if name not in creatures():
        raise ValueError(f"creature: expected one of {', '.join(creatures())}; got '{name}'.")
    return CREATURES / f"{name}.png"
