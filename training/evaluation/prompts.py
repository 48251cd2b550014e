"""What was asked for: a prompts file, one JSON object a line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..faults import Faults

_KINDS: dict[str, tuple[type, str]] = {
    "picture": (str, "a file name"), "prompt": (str, "a text"), "relation": (str, "a text"),
    "references": (list, "a list of file names"), "names": (list, "a list of texts"),
    "boxes": (list, "a list of [x0, y0, x1, y1], fractions of the picture"),
    "template": (int, "a whole number"), "seed": (int, "a whole number"), "plan": (dict, "an object"),
}
_NEEDED = ("picture", "prompt")


@dataclass(frozen=True)
class Entry:
    """One picture and what it should show.

    Attributes:
        line: its line in the file, from 1.
        picture: the generated picture.
        prompt: its prompt.
        relation: the predicate as given; empty if it is to be found in the prompt.
        references: the photograph of each subject.
        names: each subject's words in the prompt; may be empty.
        plan: the facts of a miniworld scene; may be empty.
    """

    line: int
    picture: Path
    prompt: str
    relation: str = ""
    references: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subjects(self) -> int:
        return len(self.references) or len(self.names)

    @property
    def group(self) -> str:
        """`single`, `multi`, or nothing where the subjects are not told."""
        return "" if not self.subjects else "single" if self.subjects == 1 else "multi"

    @property
    def case(self) -> tuple:
        """What the seeds of one case share."""
        return self.prompt, self.references


def read_prompts(path: Path, pictures: Path) -> list[Entry]:
    """Read a prompts file.

    Args:
        path: of JSON lines: `picture` (in `pictures`), `prompt`, and optional `relation`, `references` (beside the
            prompts file, one a subject), `names`, `boxes`, `template`, `seed`, `plan`.
        pictures: the folder of generated pictures.

    Raises:
        Faults: everything that is wrong with it and every file that is missing, with their lines.
    """
    faults: list[str] = []
    if not pictures.is_dir():
        faults.append(f"{pictures}: expected a folder of pictures, found none.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Faults([*faults, f"--prompts {path}: cannot be read as text ({error})."]) from error
    entries: list[Entry] = []
    first: dict[Path, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry = _entry(line, number, where, path.parent, pictures, faults)
        if entry is None:
            continue
        if entry.picture in first:
            faults.append(f"{where}: {entry.picture.name} is in line {first[entry.picture]} already; a picture has one "
                          "line.")
        first.setdefault(entry.picture, number)
        entries.append(entry)
    if not first and not faults:
        faults.append(f"{path}: no line in it; expected one JSON object a line with 'picture' and 'prompt'.")
    if faults:
        raise Faults(faults)
    return entries


def _entry(line: str, number: int, where: str, folder: Path, pictures: Path, faults: list[str]) -> Entry | None:
    try:
        facts = json.loads(line)
    except json.JSONDecodeError as error:
        faults.append(f"{where}: not JSON: {error.msg} at column {error.colno}.")
        return None
    if not isinstance(facts, dict):
        faults.append(f"{where}: expected a JSON object, got {type(facts).__name__}.")
        return None
    wrong = _wrong(facts)
    if wrong:
        faults += [f"{where}: {fault}" for fault in wrong]
        return None
    entry = Entry(
        number, pictures / facts["picture"], facts["prompt"], facts.get("relation", "").strip(),
        tuple(folder / name for name in facts.get("references", ())), tuple(facts.get("names", ())),
        facts.get("plan", {}),
    )
    faults += [f"{where}: {file} is missing." for file in (entry.picture, *entry.references) if not file.is_file()]
    return entry


def _wrong(facts: dict[str, Any]) -> list[str]:
    """What is wrong with one object."""
    faults = [f"'{key}' is missing; expected {_KINDS[key][1]}." for key in _NEEDED if key not in facts]
    for key, value in facts.items():
        if key not in _KINDS:
            close = difflib.get_close_matches(key, _KINDS, 1)
            faults.append(f"'{key}': unknown. " + (f"Did you mean '{close[0]}'?" if close else
                                                   f"Known: {', '.join(_KINDS)}."))
        elif not isinstance(value, _KINDS[key][0]) or isinstance(value, bool):
            faults.append(f"'{key}': expected {_KINDS[key][1]}, got {value!r}.")
        elif key in _NEEDED and not value.strip():
            faults.append(f"'{key}' is empty; expected {_KINDS[key][1]}.")
        elif key in ("references", "names", "boxes") and not all(map(_is_box if key == "boxes" else _is_text, value)):
            faults.append(f"'{key}': expected {_KINDS[key][1]}, got {value!r}.")
    counts = {key: len(facts[key]) for key in ("references", "names", "boxes") if isinstance(facts.get(key), list)
              and facts[key]}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} {key}" for key, count in counts.items())
        faults.append(f"expected one of each a subject, got {told}.")
    return faults


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _is_box(box: Any) -> bool:
    return (isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int | float) for edge in box)
            and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)
