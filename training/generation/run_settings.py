"""Settings of a folder, written beside its pictures: a folder never holds triplets of two different orders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.user_files import visible

from ..common.atomic_io import check_writable, write_text
from ..common.errors import UserErrors
from .request import Engine
from .rounds import Order

FILE = "generation.json"
FORMAT = 1
_CHANGEABLE = ("count", "tries")


def settings_of(order: Order, engine: Engine) -> dict[str, Any]:
    """List the settings that change the pictures, for JSON."""
    facts = {**asdict(order), "words": order.words.model_dump()}
    fixed = {key: value for key, value in facts.items() if key not in _CHANGEABLE}
    return json.loads(json.dumps({"format": FORMAT, **fixed, "engine": dict(engine.facts)}))


def check_folder(out: Path, order: Order, engine: Engine) -> None:
    """Check that a folder is free for an order, or holds pictures of the same; nothing is written.

    Raises:
        UserErrors: it holds something else, or cannot be written to.
    """
    try:
        check_writable(out)
    except ValueError as error:
        raise UserErrors(f"OUT {error}") from error
    file = out / FILE
    if not file.is_file():
        if visible(out):
            raise UserErrors(f"OUT {out} holds files that this command did not draw; choose a folder that does not.")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserErrors(f"{file}: cannot be read ({error}). Choose another folder.") from error
    now = settings_of(order, engine)
    changed = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
    if changed:
        raise UserErrors(
            [
                f"{file}: {_short(key, before, now)}; the pictures there were drawn otherwise. Choose another OUT, "
                "or settings as they were (--count and --tries may change)."
                for key in changed
            ]
        )


def write_settings(out: Path, order: Order, engine: Engine) -> None:
    """Write the settings of a new folder."""
    write_text(out / FILE, json.dumps(settings_of(order, engine), indent=1, ensure_ascii=False) + "\n")


def _short(key: str, before: Any, now: dict[str, Any]) -> str:
    """Write "seed was 0 and is 1"; long values by their key alone."""
    texts = [json.dumps(value) for value in (before.get(key) if isinstance(before, dict) else None, now[key])]
    return f"{key} was {texts[0]} and is {texts[1]}" if max(map(len, texts)) <= 80 else f"{key} was another"
