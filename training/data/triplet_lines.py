"""A triplet as one line of ``triplets.jsonl``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from .triplet import Triplet


def triplet_line(triplet: Triplet, place: Callable[[Path, str], str]) -> dict[str, Any]:
    """Write down a triplet whose images have been opened.

    Args:
        triplet: with its facts; further keys of its line are kept.
        place: puts an image of it where the line says; called with its path and what it is (``target``, ``concept0``,
            ``mask0``, ...), returns the path from the folder of ``triplets.jsonl``.
    """
    return {
        "target": place(triplet.target, "target"),
        "concepts": [place(path, f"concept{i}") for i, path in enumerate(triplet.concepts)],
        "prompt": triplet.prompt,
        "relation": triplet.predicate,
        "names": list(triplet.names),
        "boxes": [[round(edge, 6) for edge in box] for box in triplet.facts.boxes.tolist()],
        "masks": [place(path, f"mask{i}") for i, path in enumerate(triplet.masks)],
        "keypoints_target": _rounded(triplet.keypoints_target),
        "keypoints_concepts": _rounded(triplet.keypoints_concepts),
        **triplet.extra,
    }


def _rounded(keypoints: Tensor) -> list:
    """Round to six decimals: a thousandth of a pixel."""
    return [[[round(number, 6) for number in joint] for joint in skeleton] for skeleton in keypoints.tolist()]
