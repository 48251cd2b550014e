"""Tensors made with the authors' own modules (tests/golden), kept small without losing a bit.

Random float32 numbers hardly compress, but their exponents do: the four bytes of all numbers are deflated apart.
Weights that torch drew itself, uniform in +-1/sqrt(fan-in) after `torch.manual_seed`, are drawn again when they are
read; the file keeps their places in the stream of random numbers, and a hash of all bytes that must come out.

    python -m tests.golden_tensors FILE.safetensors [--seed 11]     packs a file into tests/golden
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
_BYTES = 4  # of a float32
_STREAM = 6_000_000  # random numbers in which weights are looked for
_GRID = 2**24  # torch draws a float32 as a multiple of 1 / _GRID


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a golden file, e.g. "dreamrelation_public", byte for byte as they were packed."""
    whole = _unpack(FOLDER / f"{name}.npz")
    length, header = _header(whole)
    return load(whole), header.get("__metadata__", {})


def pack(path: Path, seed: int | None = None) -> Path:
    """Pack a safetensors file into tests/golden, and check that nothing is lost.

    Args:
        path: of the file.
        seed: with which its weights were drawn; None stores all of them.
    """
    whole = bytearray(path.read_bytes())
    digest = sha256(whole).hexdigest()
    drawn = [] if seed is None else _places(bytes(whole), seed)
    for start, _, _, count in drawn:
        whole[start : start + _BYTES * count] = bytes(_BYTES * count)
    numbers = np.frombuffer(bytes(whole), np.uint8)
    even = len(numbers) // _BYTES * _BYTES
    planes = {f"byte{place}": numbers[:even].reshape(-1, _BYTES)[:, place] for place in range(_BYTES)}
    target = FOLDER / f"{path.stem}.npz"
    table = np.array(drawn, np.int64).reshape(-1, 4)
    np.savez_compressed(target, rest=numbers[even:], seed=seed or 0, drawn=table, sha256=digest, **planes)
    _unpack(target)
    return target


def _unpack(path: Path) -> bytes:
    with np.load(path, allow_pickle=False) as packed:
        planes = np.stack([packed[f"byte{place}"] for place in range(_BYTES)], axis=1)
        whole = bytearray(planes.tobytes() + packed["rest"].tobytes())
        generator, position = torch.Generator().manual_seed(int(packed["seed"])), 0
        for start, place, fan_in, count in sorted(packed["drawn"].tolist(), key=lambda row: row[1]):
            torch.empty(place - position).uniform_(generator=generator)
            weights = torch.empty(count).uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
            whole[start : start + _BYTES * count] = weights.numpy().tobytes()
            position = place + count
        if sha256(whole).hexdigest() != str(packed["sha256"]):
            raise ValueError(f"{path.name}: this torch ({torch.__version__}) draws other weights than were packed.")
    return bytes(whole)


def _header(whole: bytes) -> tuple[int, dict]:
    """Bytes before the tensors, and the header of a safetensors file."""
    length = int.from_bytes(whole[:8], "little")
    return 8 + length, json.loads(whole[8 : 8 + length])


def _places(whole: bytes, seed: int) -> list[tuple[int, int, int, int]]:
    """Find weights in a seed's stream: byte in the file, place in the stream, fan-in, how many."""
    stream = torch.empty(_STREAM).uniform_(generator=torch.Generator().manual_seed(seed))
    stream = (stream.double() * _GRID).round().long().numpy()
    order = np.argsort(stream, kind="stable")
    offset, header = _header(whole)
    found = []
    for name, facts in header.items():
        fan_ins = _fan_ins(header, name)
        if name == "__metadata__" or facts["dtype"] != "F32" or not fan_ins:
            continue
        start, end = (offset + byte for byte in facts["data_offsets"])
        values = np.frombuffer(whole[start:end], "<f4").astype(np.float64)
        for fan_in in fan_ins:
            bound = fan_in**-0.5
            first = np.round((values[:4] + bound) / (2 * bound) * _GRID).astype(np.int64)
            low, high = np.searchsorted(stream, (first[0] - 2, first[0] + 3), sorter=order)
            places = [at for at in order[low:high] if np.abs(stream[at : at + len(first)] - first).max() <= 2]
            if len(values) >= 4 and places:
                found.append((start, int(places[0]), fan_in, len(values)))
                break
    return found


def _fan_ins(header: dict, name: str) -> set[int]:
    """Fan-in of a weight, or of the weight beside a bias."""
    shape = header.get(name.rsplit(".", 1)[0] + ".weight", {}).get("shape", ())
    return {int(np.prod(shape[1:]))} if len(shape) > 1 else set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, help="with which the weights were drawn")
    options = parser.parse_args()
    for file in options.files:
        print(pack(file, options.seed))
