"""Files of tensors: read as data, compared key by key, written atomically.

No file is ever executed: safetensors, or torch archives with ``weights_only``. The kind of a file is read from its
metadata or its whole key set.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .key_report import first_few

FORMAT = "relate/1"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # first bytes of torch's two kinds of archive
_LENGTH, _MAX_HEADER = 8, 100_000_000  # bytes before a safetensors header, which says its length; its limit

SAFETENSORS, TORCH_ZIP, TORCH_PICKLE = "safetensors", "torch archive", "old torch archive"


def kind_of(path: str | Path) -> str | None:
    """Detect one of the three kinds of file by its first bytes, whatever its name says; None for any other."""
    with Path(path).open("rb") as file:
        first = file.read(_LENGTH + 1)
    # first of all: the length of a header may begin with the byte that begins a pickle
    if first[_LENGTH:] == b"{" and int.from_bytes(first[:_LENGTH], "little") <= _MAX_HEADER:
        return SAFETENSORS
    return TORCH_ZIP if first[:4] == _ZIP else TORCH_PICKLE if first[:1] == _PICKLE else None


def read(path: str | Path) -> tuple[dict, dict[str, str]]:
    """Read all of a file to the CPU, large torch archives memory-mapped.

    Args:
        path: safetensors or a torch archive; the content decides which, not the ending.

    Returns:
        The file's (possibly nested) dictionary and its metadata (empty for a torch archive).

    Raises:
        ValueError: not there, truncated, not such a file, or a pickle that holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: no such file in {path.parent}. Put it there or choose another.")
    kind = _checked_kind(path)
    try:
        if kind == SAFETENSORS:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
        content = _load_archive(path, kind)
    except pickle.UnpicklingError as error:
        if kind == TORCH_PICKLE and not _is_whole_pickle(path):
            raise ValueError(_unreadable(path, "its pickle breaks off")) from error
        # torch's own message advises to switch its protection off
        raise ValueError(
            f"{path.name}: expected tensors only, but this file wants to run code or build other objects "
            "when it is opened. It was not opened. Get it from its publisher again, or as safetensors."
        ) from error
    except Exception as error:  # damaged pickles raise whatever their bytes happen to mean
        raise ValueError(_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: expected a dictionary of tensors, got a {type(content).__name__}.")
    return content, {}


def _is_whole_pickle(path: Path) -> bool:
    """Whether a pickle's first part can be read to its end; nothing in it is executed."""
    try:
        with path.open("rb") as file:
            return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(file))
    except Exception:  # whatever damaged bytes mean to it
        return False


def _unreadable(path: Path, error: Exception | str) -> str:
    return (
        f"{path.name}: expected a whole file of tensors, but it cannot be read ({error}). It may be truncated: "
        "download it again and compare the size."
    )


def _load_archive(path: Path, kind: str) -> object:
    """Only zip archives can be memory-mapped, and torch reads any path that ends in .safetensors as safetensors."""
    if kind == TORCH_ZIP and not path.name.endswith(".safetensors"):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def flat_tensors(content: Mapping, file: str) -> dict[str, Tensor]:
    """Return a file's content as tensors by key.

    Raises:
        ValueError: other keys than text, or other values than tensors.
    """
    odd = [
        f"{key!r} is a {type(value).__name__}"
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if odd:
        raise ValueError(
            f"{file}: expected tensors by name, but {len(odd)} of its {len(content)} entries are none "
            f"({first_few(odd)})."
        )
    return dict(content)


def tensors_of(content: Mapping) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors of a file that may hold more, and the names of all else (epochs, nested dictionaries)."""
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    return tensors, tuple(str(key) for key in content if key not in tensors)


def metadata_number(metadata: Mapping[str, str], name: str, default: int, file: str) -> int:
    """Read a size from a file's metadata.

    Raises:
        ValueError: not a whole number from 1 to 9999.
    """
    text = metadata.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise ValueError(f"{file}: expected the metadata's {name} to be a whole number from 1 to 9999, got {text!r}.")
    return int(text)


def _checked_kind(path: Path) -> str:
    """Return the kind of a file of tensors; name what a failed download has saved in place of one.

    Raises:
        ValueError: the file is empty, or none of the kinds.
    """
    kind = kind_of(path)
    if kind is not None:
        return kind
    with path.open("rb") as file:
        first = file.read(16)
    if not first:
        raise ValueError(f"{path.name}: expected a file of tensors, but it is empty. Download it again.")
    expected = "safetensors" if path.suffix.lower() in (".safetensors", ".sft") else "a torch archive"
    raise ValueError(
        f"{path.name}: expected {expected}, but it begins with {first!r}: not a file of tensors, perhaps "
        "a web page saved in its place. Download it again and compare the size."
    )


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a safetensors file without reading its tensors; empty for any other file."""
    if kind_of(path) != SAFETENSORS:
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{Path(path).name}: expected a whole safetensors file, but it cannot be read ({error}). "
            "It may be truncated: download it again and compare the size."
        ) from error


def save(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write safetensors under a temporary name in the same folder, check it, rename it: the file is whole or absent.

    The bytes are a function of the contents: equal runs leave equal files, which a hash can tell.

    Args:
        path: of the file; its folder is made.
        tensors: by key; made contiguous.
        metadata: flat strings; ``format`` is set to ``relate/1``.
        check: raises if what was written is not right; the file then never appears.

    Raises:
        OSError: it cannot be written; a file of this name that was there before stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".part{path.suffix}", dir=path.parent)
    os.close(handle)
    try:
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"format": FORMAT, **metadata})
        _sort_metadata(Path(temporary))
        check(Path(temporary))
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except SafetensorError as error:  # its word for a full disk, which Python calls OSError
        raise OSError(f"{path}: cannot be written ({error})") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """Rewrite the header in place: 8 bytes of length, then JSON padded with spaces, then the tensors' bytes.

    The library writes metadata in another order each time: https://github.com/huggingface/safetensors/issues/584.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path.name}: the header grew from {length} to {len(text)} bytes while it was sorted.")
        file.seek(8)
        file.write(text.ljust(length))


def _umask() -> int:
    """Return the permissions new files are denied; mkstemp denies more."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
