"""Tensors made with the authors' own modules (tests/golden), kept small: bytes of the same place in a float together.

Random float32 numbers hardly compress, but their exponents do: the four bytes of all numbers are deflated apart, which
loses nothing. `python -m tests.golden_tensors FILE.safetensors` packs a file into tests/golden.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.torch import load
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
_BYTES = 4  # of a float32


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a golden file, e.g. "dreamrelation_public", byte for byte as they were packed."""
    whole = _unpack(FOLDER / f"{name}.npz")
    length = int.from_bytes(whole[:8], "little")
    return load(whole), json.loads(whole[8 : 8 + length]).get("__metadata__", {})


def pack(path: Path) -> Path:
    """Pack a safetensors file into tests/golden, and check that nothing is lost."""
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    even = len(whole) // _BYTES * _BYTES
    planes = {f"byte{place}": whole[:even].reshape(-1, _BYTES)[:, place] for place in range(_BYTES)}
    target = FOLDER / f"{path.stem}.npz"
    np.savez_compressed(target, rest=whole[even:], **planes)
    if _unpack(target) != whole.tobytes():
        raise ValueError(f"{path.name}: what was packed is not what was read.")
    return target


def _unpack(path: Path) -> bytes:
    with np.load(path, allow_pickle=False) as packed:
        planes = np.stack([packed[f"byte{place}"] for place in range(_BYTES)], axis=1)
        return planes.tobytes() + packed["rest"].tobytes()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(pack(Path(name)))
