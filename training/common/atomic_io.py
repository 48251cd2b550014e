"""Files that appear only when they are whole; safetensors are written by `core.checkpoint.save` in the same way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then rename it; its folder is made.

    Args:
        path: where the file is to appear.
        write: writes to the path it is given, and raises if what it wrote is not right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Look whether a folder exists, or could be made, and can be written to; nothing is written.

    Raises:
        ValueError: neither.
    """
    standing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not standing.is_dir():
        raise ValueError(f"{folder}: {standing} is a file; choose another folder.")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: cannot be written to; choose another folder.")


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8 as `atomic_write` does."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
