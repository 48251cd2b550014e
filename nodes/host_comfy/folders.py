"""Where files lie. Registers ``models/relate`` once, with the endings of weights, beside what the user configured."""

from __future__ import annotations

import os

import folder_paths

RELATE = "relate"


def register() -> None:
    """Make ``models/relate`` known; keep folders that extra_model_paths.yaml added under the same name."""
    default = os.path.join(folder_paths.models_dir, RELATE)
    paths, endings = folder_paths.folder_names_and_paths.get(RELATE, ([], set()))
    if default not in paths:
        paths = [*paths, default]
    folder_paths.folder_names_and_paths[RELATE] = (paths, set(endings) | set(folder_paths.supported_pt_extensions))


def identity_files() -> list[str]:
    """Names of the files in ``models/relate``."""
    return folder_paths.get_filename_list(RELATE)


def lora_files() -> list[str]:
    """Names of the files in ``models/loras``."""
    return folder_paths.get_filename_list("loras")


def identity_path(name: str) -> str:
    """Full path of a file of ``models/relate``."""
    return folder_paths.get_full_path_or_raise(RELATE, name)


def lora_path(name: str) -> str:
    """Full path of a file of ``models/loras``."""
    return folder_paths.get_full_path_or_raise("loras", name)
