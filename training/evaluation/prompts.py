"""What was asked for: a prompts file, one JSON object a line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import Faults

_KINDS: dict[str, tuple[type, str]] = {
    "picture": (str, "a file name"), "prompt": (str, "a text"), "relation": (str, "a text"),
    "references": (list, "a list of file names"), "names": (list, "a list of texts"),
    "boxes": (list, "a list of [x0, y0, x1, y1], fractions of the picture"),
    "template": (int, "a whole number"), "seed": (int, "a whole number"), "plan": (dict, "an object"),
    "id": (str, "a text"), "set": (str, "a text"), "task": (str, "a text"), "symmetric": (bool, "true or false"),
    "views": (list, "a list of lists of file names"),
    "questions": (list, 'a list of {"text": a question, "wanted": true or false, "parents": earlier questions\' '
                        "numbers from 0}"),
}
_NEEDED = ("picture", "prompt")


@dataclass(frozen=True)
class Question:
    """A yes-or-no question about a picture.

    Attributes:
        text: the question.
        wanted: the answer of a picture that is as asked for.
        parents: indices of questions of the same line that must be answered as wanted for this one to count.
    """

    text: str
    wanted: bool = True
    parents: tuple[int, ...] = ()


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
        boxes: x0 y0 x1 y1 of each subject, fractions of the picture; may be empty.
        views: more photographs of each subject; may be empty.
        questions: what a judge is asked beside the questions made from the relation.
        symmetric: whether the relation says the same with its subjects exchanged; None if that is not known.
        seed: seed of the picture; None if it is not known.
        id, set, task: name of the case, of the benchmark and of its part; may be empty.
    """

    line: int
    picture: Path
    prompt: str
    relation: str = ""
    references: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    boxes: tuple[tuple[float, ...], ...] = ()
    views: tuple[tuple[Path, ...], ...] = ()
    questions: tuple[Question, ...] = ()
    symmetric: bool | None = None
    seed: int | None = None
    id: str = ""
    set: str = ""
    task: str = ""

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


def read_prompts(path: Path, pictures: Path, missing: str = "fault") -> list[Entry]:
    """Read a prompts file.

    Args:
        path: of JSON lines: `picture` (in `pictures`), `prompt`, and optional `relation`, `references` (beside the
            prompts file, one for each subject), `names`, `boxes`, `views`, `questions`, `symmetric`, `template`,
            `seed`, `plan`, `id`, `set`, `task`.
        pictures: the folder of generated pictures.
        missing: what becomes of a line whose picture is missing: "fault" reports it, "skip" leaves the line out,
            "keep" keeps it, for pictures that are still to be drawn.

    Raises:
        Faults: everything that is wrong with it and every file that is missing, with their lines.
    """
    faults: list[str] = []
    if missing != "keep" and not pictures.is_dir():
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
        entry = _entry(line, number, where, path.parent, pictures, faults, missing)
        if entry is None:
            continue
        if entry.picture in first:
            faults.append(f"{where}: {entry.picture.name} is in line {first[entry.picture]} already; a picture has one "
                          "line.")
        first.setdefault(entry.picture, number)
        if missing != "skip" or entry.picture.is_file():
            entries.append(entry)
    if not first and not faults:
        faults.append(f"{path}: no line in it; expected one JSON object a line with 'picture' and 'prompt'.")
    elif not entries and not faults:
        faults.append(f"{pictures}: none of the {len(first)} pictures of {path} is there.")
    if faults:
        raise Faults(faults)
    return entries


def _entry(line: str, number: int, where: str, folder: Path, pictures: Path, faults: list[str], missing: str
           ) -> Entry | None:
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
        facts.get("plan", {}), tuple(map(tuple, facts.get("boxes", ()))),
        tuple(tuple(folder / name for name in views) for views in facts.get("views", ())),
        tuple(Question(**{**one, "parents": tuple(one.get("parents", ()))}) for one in facts.get("questions", ())),
        facts.get("symmetric"), facts.get("seed"), *(facts.get(key, "") for key in ("id", "set", "task")),
    )
    files = [*entry.references, *(file for views in entry.views for file in views)]
    needed = dict.fromkeys([entry.picture, *files] if missing == "fault" else files)
    faults += [f"{where}: {file} is missing." for file in needed if not file.is_file()]
    return entry


def _wrong(facts: dict[str, Any]) -> list[str]:
    """What is wrong with one object."""
    faults = [f"'{key}' is missing; expected {_KINDS[key][1]}." for key in _NEEDED if key not in facts]
    for key, value in facts.items():
        if key not in _KINDS:
            close = difflib.get_close_matches(key, _KINDS, 1)
            faults.append(f"'{key}': unknown. " + (f"Did you mean '{close[0]}'?" if close else
                                                   f"Known: {', '.join(_KINDS)}."))
        elif not isinstance(value, _KINDS[key][0]) or isinstance(value, bool) != (_KINDS[key][0] is bool):
            faults.append(f"'{key}': expected {_KINDS[key][1]}, got {value!r}.")
        elif key in _NEEDED and not value.strip():
            faults.append(f"'{key}' is empty; expected {_KINDS[key][1]}.")
        elif key in _PARTS and not all(map(_PARTS[key], value)):
            faults.append(f"'{key}': expected {_KINDS[key][1]}, got {value!r}.")
        elif key == "questions" and any(not _is_question(one, place) for place, one in enumerate(value)):
            faults.append(f"'{key}': expected {_KINDS[key][1]}, got {value!r}.")
    counts = {key: len(facts[key]) for key in _PARTS if isinstance(facts.get(key), list) and facts[key]}
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{count} {key}" for key, count in counts.items())
        faults.append(f"expected one of each a subject, got {lengths}.")
    return faults


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _is_box(box: Any) -> bool:
    return (isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int | float) for edge in box)
            and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_question(value: Any, place: int) -> bool:
    return (isinstance(value, dict) and set(value) <= {"text", "wanted", "parents"} and _is_text(value.get("text"))
            and isinstance(value.get("wanted", True), bool) and isinstance(value.get("parents", []), list)
            and all(isinstance(parent, int) and 0 <= parent < place for parent in value.get("parents", [])))


_PARTS = {"references": _is_text, "names": _is_text, "boxes": _is_box, "views": _is_texts}  # one for each subject
