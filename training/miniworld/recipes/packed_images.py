"""Pictures on disk at a quarter of their size: each compressed alone, all in one file, read by index.

A 128-pixel scene takes 12 kB instead of 49 kB and 0.12 ms to unpack, so a corpus of 60,000 fits in 0.7 GB and in the
file cache, and no step waits for it.
"""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...common.atomic_io import write_text

LEVEL = 3  # of zlib: higher gains 3 % of size and costs twice the time


class PackedImages:
    """Read access to a packed file, like a uint8 array of shape (N, H, W, 3).

    Args:
        path: of the packed file; its index lies beside it as `<path>.json`.

    Raises:
        FileNotFoundError: there is no finished file.
    """

    def __init__(self, path: Path) -> None:
        index = path.with_name(path.name + ".json")
        if not index.exists():
            raise FileNotFoundError(f"{path}: expected packed pictures, got none; render them first")
        facts = json.loads(index.read_text(encoding="utf-8"))
        self.side: int = facts["side"]
        self.ends = np.cumsum(facts["sizes"])
        self.bytes = np.memmap(path, np.uint8, "r")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Read pictures (B, H, W, 3) uint8 by indices (B,)."""
        return np.stack([self._one(int(index)) for index in np.atleast_1d(indices)])

    def _one(self, index: int) -> np.ndarray:
        start = int(self.ends[index - 1]) if index else 0
        pixels = zlib.decompress(self.bytes[start : int(self.ends[index])].tobytes())
        return np.frombuffer(pixels, np.uint8).reshape(self.side, self.side, 3)


def compress(image: np.ndarray) -> bytes:
    """Compress one (H, W, 3) uint8 picture for storage."""
    return zlib.compress(np.ascontiguousarray(image).tobytes(), LEVEL)


def write_packed(path: Path, pictures: Iterable[bytes], side: int) -> int:
    """Write pictures already compressed by `compress`, the index last: without it the file counts as unfinished.

    Args:
        path: of the packed file.
        pictures: compressed, in order.
        side: pixels along each side of every picture.

    Returns:
        Bytes written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    index = path.with_name(path.name + ".json")
    index.unlink(missing_ok=True)
    sizes = []
    with open(path, "wb") as file:
        for picture in pictures:
            file.write(picture)
            sizes.append(len(picture))
    write_text(index, json.dumps({"side": side, "sizes": sizes}))
    return sum(sizes)
