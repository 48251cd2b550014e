"""Files that appear only when they are whole and right; safetensors whose bytes are a function of their contents.

The library writes metadata in an order that differs from run to run. Sorted, two runs with the same result have the
same file, so that "resumed ends as uninterrupted" can be checked with a hash.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let a file be written under a temporary name beside it, then rename it; its folder is made.

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


def write_text(path: Path, text: str) -> None:
    """`write_whole` for text, UTF-8."""
    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


def settle(path: Path, write: Callable[[Path], None], check: Callable[[Path], None] = lambda path: None) -> None:
    """Write a file under a temporary name beside it, sort its metadata, check it, then rename it.

    Args:
        path: where the file is to appear; its folder is made.
        write: writes safetensors to the path it is given.
        check: raises if what was written is not right; the file then never appears.
    """
    def settled(temporary: Path) -> None:
        write(temporary)
        _sort_metadata(temporary)
        check(temporary)

    write_whole(path, settled)


def _sort_metadata(path: Path) -> None:
    """Rewrite the header in place: 8 bytes of length, then JSON padded with spaces, then the tensors' bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path.name}: the header grew from {length} to {len(text)} bytes while it was sorted.")
        file.seek(8)
        file.write(text.ljust(length))
