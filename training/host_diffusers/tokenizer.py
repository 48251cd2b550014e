"""The CLIP tokenizer's files: bundled with the base, named in the config, or ComfyUI's own."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import CLIPTokenizer

from core.user_files import visible_files

from .errors import ModelFileErrors, one_line

_PACK = Path(__file__).resolve().parents[2]
_LAYOUTS = (("vocab.json", "merges.txt"), ("tokenizer.json",))  # transformers wrote the first, 5 writes the second


def find_tokenizer(named: str = "") -> Path:
    """Return a folder with CLIP's ``vocab.json`` and ``merges.txt``, or its ``tokenizer.json``.

    Args:
        named: where the user says it is; empty looks in the ComfyUI this pack is installed in, then in the one of the
            environment variable ``COMFYUI_PATH``.

    Raises:
        ModelFileErrors: not there.
    """
    comfyui = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0] or _PACK / "nowhere"
    places = (
        [Path(named)]
        if named
        else [root / "comfy" / "sd1_tokenizer" for root in (_PACK.parents[1], Path(comfyui).expanduser())]
    )
    for place in places:
        if any(all((place / name).is_file() for name in layout) for layout in _LAYOUTS):
            return place
    raise ModelFileErrors(
        f"models.tokenizer: no vocab.json and merges.txt in {', '.join(map(str, places))}, and no "
        "tokenizer.json. A checkpoint file has no tokenizer: name a folder with CLIP's, e.g. "
        "comfy/sd1_tokenizer of a ComfyUI."
    )


def tokenizer_of(base: Path, named: str) -> Path:
    """Find the tokenizer of a base in a diffusers folder: the named one, its own, or as `find_tokenizer`.

    Raises:
        ModelFileErrors: not there.
    """
    own = base / "tokenizer"
    return find_tokenizer(named or (str(own) if own.is_dir() else ""))


def open_tokenizer(folder: Path, vocabulary: int) -> CLIPTokenizer:
    """Read a tokenizer.

    Args:
        folder: as found.
        vocabulary: how many tokens the text encoders know.

    Raises:
        ModelFileErrors: its files are broken, or it has tokens that the text encoders do not know.
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise ModelFileErrors(
            f"models.tokenizer: {folder} cannot be read ({one_line(error)}). Copy it again."
        ) from error
    if len(tokenizer) > vocabulary:
        raise ModelFileErrors(
            f"models.tokenizer: {folder} has {len(tokenizer)} tokens, the base's text encoders know "
            f"{vocabulary}. Name the tokenizer of this base."
        )
    return tokenizer


def tokenizer_files(folder: Path) -> list[Path]:
    """Return what it is made of, for fingerprints."""
    return visible_files(folder, {".json", ".txt"})
