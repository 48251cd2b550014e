"""Text, JSON and folders that users hand us, each read in one way.

Editors save UTF-8 with a byte order mark, Windows tools UTF-16 or a code page, and systems leave hidden files, `.git`,
`__MACOSX` and notebook checkpoints in any folder: nothing of that may end in a traceback or be taken for data.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

_LITTER = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}  # what archives, servers and desktops leave behind
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}  # the longer marks first: UTF-32's begins with UTF-16's


def read_text(path: str | Path) -> str:
    """Read UTF-8 text, with or without a byte order mark; line ends become ``\\n``.

    Raises:
        ValueError: not there, not a file, not readable, or in another encoding.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}).") from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")
    if not encoding and data[:64].count(0) > len(data[:64]) // 4:
        encoding = "UTF-16 or a binary file"
    try:
        text = "" if encoding else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        encoding = f"another encoding (byte 0x{data[error.start]:02x} in line {line})"
    if encoding:
        raise ValueError(f"{path}: expected text in UTF-8, got {encoding}. Save it again as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON value.

    Raises:
        ValueError: as `read_text`; not JSON, with the line.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; lists in lists in lists
        raise ValueError(f"{path}: not JSON that can be read: {error}.") from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        ValueError: as `read_json`; another value than an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(value).__name__}.")
    return value


def read_json_lines(path: str | Path) -> tuple[dict[int, Any], list[str]]:
    """Read one JSON value per line; empty lines are skipped.

    Returns:
        The values by line number, from 1, and one sentence for every line that is not JSON.

    Raises:
        ValueError: as `read_text`.
    """
    values, faults = {}, []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values[number] = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}.")
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}, line {number}: not JSON that can be read: {error}.")
    return values, faults


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system."""
    return name.startswith(".") or name in _LITTER


def visible(folder: str | Path) -> list[Path]:
    """Entries of a folder in the order of their names, without hidden ones and without what systems leave behind.

    What is no folder has none.
    """
    folder = Path(folder)
    return sorted(path for path in folder.iterdir() if not is_litter(path.name)) if folder.is_dir() else []


def visible_files(folder: str | Path, endings: Collection[str], deep: bool = False) -> list[Path]:
    """Files of a folder by their endings, in any case, in the order of their paths.

    Args:
        folder: to look in.
        endings: e.g. ``{".json", ".safetensors"}``, lower case.
        deep: look into its visible folders as well.
    """
    files: list[Path] = []
    for path in visible(folder):
        if path.is_file() and path.suffix.lower() in endings:
            files.append(path)
        elif deep and path.is_dir() and not path.is_symlink():
            files += visible_files(path, endings, deep)
    return files
