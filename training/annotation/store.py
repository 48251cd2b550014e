"""Cache of stage results, keyed by the content they were made from: a second run redoes only what has changed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..common.atomic_io import write_text
from .backends import Part, opened_part

FOLDER = ".work"
Job = tuple[dict[str, Any], Callable[[Any], Any]]  # what the result depends on; the model to the result (JSON)


class Store:
    """A folder of JSON files named by stage and hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, stage: str, part: Part, jobs: Sequence[Job]) -> list[Any]:
        """Return the results of all jobs; the model is opened only if one of them is not stored yet."""
        paths = [self.folder / f"{stage}-{_hash([part.key, key])}.json" for key, _ in jobs]
        results = [_read(path) for path in paths]
        missing = [index for index, result in enumerate(results) if result is None]
        if missing:
            with opened_part(part) as model:
                for index in tqdm(missing, desc=stage, unit="", mininterval=1):
                    if (again := _read(paths[index])) is None:  # two jobs may be the same
                        again = {"result": jobs[index][1](model)}
                        write_text(paths[index], json.dumps(again))
                    results[index] = again
                del model  # before its memory is given back
        return [result["result"] for result in results]


def _read(path: Path) -> Any:
    """Read a stored result, or None: one that an interrupted disk has spoilt is made again."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def pixels_hash(image: Image.Image) -> str:
    """Hash the decoded pixels, so that a JPEG and its PNG copy are one picture."""
    return sha256(f"{image.size}".encode() + image.convert("RGB").tobytes()).hexdigest()[:24]


def mask_text(mask: np.ndarray) -> str:
    """Write a mask as base64 of a black and white PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, bool)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def text_mask(text: str) -> np.ndarray:
    """Read the mask of `mask_text`: (H, W) bool."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("1"))
