"""The CLIP tokenizer's files: bundled with the base, named in the config, or ComfyUI's own."""

from __future__ import annotations

import os
from pathlib import Path

from ..common.errors import Faults

_PACK = Path(__file__).resolve().parents[2]


def find_tokenizer(named: str = "") -> Path:
    """A folder with CLIP's ``vocab.json`` and ``merges.txt``.

    Args:
        named: where the user says it is; empty looks in the ComfyUI this pack is installed in, then in the one of the
            environment variable ``COMFYUI_PATH``.

    Raises:
        Faults: not there.
    """
    places = [Path(named)] if named else [
        root / "comfy" / "sd1_tokenizer"
        for root in (_PACK.parents[1], Path(os.environ.get("COMFYUI_PATH") or _PACK / "nowhere"))
    ]
    for place in places:
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            return place
    raise Faults(f"models.tokenizer: no vocab.json and merges.txt in {', '.join(map(str, places))}. A checkpoint file "
                 "has no tokenizer: name a folder with CLIP's, e.g. comfy/sd1_tokenizer of a ComfyUI.")
