"""One run at a time in a folder: a lock that ends with the process that holds it, however it ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if os.name == "nt":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)
_NAME = "in_use.lock"
_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}


class FolderInUse(ValueError):
    """Another process works in the folder."""


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; the folder is made.

    Raises:
        FolderInUse: another process holds it.
    """
    path = Path(folder) / _NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _lock(path)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps({"process": os.getpid(), "computer": socket.gethostname()}).encode())
        yield
    finally:
        if os.name == "nt":  # an open file cannot be deleted there
            os.close(handle)
            _delete(path)
        else:
            _delete(path)
            os.close(handle)


def check_free(folder: str | Path) -> None:
    """Look whether a folder could be held; nothing is written.

    Raises:
        FolderInUse: another process holds it.
    """
    path = Path(folder) / _NAME
    if path.is_file():
        os.close(_lock(path))


def _lock(path: Path) -> int:
    """Open and lock the file that the name stands for; a holder that ends meanwhile may have deleted it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if os.name == "nt":
                os.lseek(handle, 1 << 20, os.SEEK_SET)  # beyond its text, which stays readable
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                os.lseek(handle, 0, os.SEEK_SET)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except OSError as error:
            if error.errno not in _HELD:
                log.warning("%s: this disk knows no locks (%s); start nothing else in this folder.", path.parent, error)
                return handle
            holder = _holder(path)
            os.close(handle)
            raise FolderInUse(
                f"{path.parent} is in use by another run{holder}. Wait until it has ended, stop it, or "
                "choose another folder."
            ) from error
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return f" (process {facts['process']} on {facts['computer']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # it is just writing its name


def _delete(path: Path) -> None:
    with suppress(OSError):  # on Windows the next holder may have it open already; then it is theirs
        path.unlink(missing_ok=True)
