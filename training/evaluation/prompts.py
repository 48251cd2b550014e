"""Read a prompts file: one JSON object per line with a picture's name and what it should show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat

from core.user_files import read_json_lines

from ..common.errors import UserErrors
from ..common.schema import Checked, NeededPath, Words, checked_entry, shown


class AskedQuestion(Checked):
    """A yes-or-no question as a line has it."""

    text: Words = Field(description="a question")
    wanted: bool = Field(True, description="the answer of a picture that is as asked for")
    parents: list[Annotated[int, Field(ge=0)]] = Field([], description="earlier questions' numbers from 0")


class PromptEntry(Checked):
    """One line of a prompts file as it is written."""

    picture: NeededPath = Field(description="a file name")
    prompt: Words = Field(description="a text")
    relation: str = Field("", description="the predicate; found in the prompt where it is not given")
    references: list[NeededPath] = Field([], description="a list of file names, one per subject")
    names: list[Words] = Field([], description="a list of texts, one per subject")
    boxes: list[list[FiniteFloat]] = Field([], description="a list of [x0, y0, x1, y1], fractions of the picture")
    template: int | None = Field(None, description="a whole number: the template of RelationBench")
    seed: int | None = Field(None, description="a whole number: of the picture's noise")
    plan: dict[str, Any] = Field({}, description="an object: the facts of a miniworld scene")
    id: str = Field("", description="a text: of the case")
    set: str = Field("", description="a text: of the benchmark")
    task: str = Field("", description="a text: of a part of the benchmark")
    symmetric: bool | None = Field(None, description="whether the relation says the same of exchanged subjects")
    views: list[Annotated[list[NeededPath], Field(min_length=1)]] = Field(
        [], description="a list of lists of file names, one per subject"
    )
    questions: list[AskedQuestion] = Field([], description="a list of questions with the wanted answers")

    def contradictions(self) -> list[tuple[str, str]]:
        keys = ("references", "names", "boxes", "views")
        counts = {key: len(getattr(self, key)) for key in keys if getattr(self, key)}
        faults = []
        if len(set(counts.values())) > 1:
            counted = ", ".join(f"{count} {key}" for key, count in counts.items())
            faults.append((next(iter(counts)), f"expected one of each per subject, got {counted}."))
        if not all(len(box) == 4 and 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 for box in self.boxes):
            faults.append(("boxes", f"expected [x0, y0, x1, y1], fractions of the picture, got {shown(self.boxes)}."))
        if any(parent >= place for place, one in enumerate(self.questions) for parent in one.parents):
            faults.append(("questions", "expected 'parents' to be earlier questions' numbers, from 0."))
        return faults


@dataclass(frozen=True)
class Question:
    """A yes-or-no question about a picture.

    Attributes:
        text: the question.
        wanted: the answer of a correct picture.
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
        questions: for a judge, beside the questions made from the relation.
        symmetric: whether the relation says the same with its subjects exchanged; None if unknown.
        seed: seed of the picture; None if unknown.
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
        """`single`, `multi`, or nothing without references and names."""
        return "" if not self.subjects else "single" if self.subjects == 1 else "multi"

    @property
    def case(self) -> tuple:
        """Key of the case, shared by its seeds."""
        return self.prompt, self.references


def name_inside(picture: Path, folder: Path) -> str:
    """Return a picture's path in its folder of pictures; its bare name where it lies elsewhere."""
    inside = picture.relative_to(folder) if picture.is_relative_to(folder) else Path(picture.name)
    return picture.name if ".." in inside.parts else inside.as_posix()


def read_prompts(path: Path, pictures: Path, missing: str = "fault") -> list[Entry]:
    """Read a prompts file.

    Args:
        path: of JSON lines: `picture` (in `pictures`), `prompt`, and optional `relation`, `references` (beside the
            prompts file, one for each subject), `names`, `boxes`, `views`, `questions`, `symmetric`, `template`,
            `seed`, `plan`, `id`, `set`, `task`.
        pictures: the folder of generated pictures.
        missing: treatment of a line whose picture is missing: "fault" reports it, "skip" leaves the line out,
            "keep" keeps it, for pictures that are still to be drawn.

    Raises:
        UserErrors: everything that is wrong with it and every file that is missing, with their lines.
    """
    faults: list[str] = []
    if missing != "keep" and not pictures.is_dir():
        faults.append(f"{pictures}: expected a folder of pictures, found none.")
    try:
        lines, broken = read_json_lines(path)
    except ValueError as error:
        raise UserErrors([*faults, f"--prompts {error}"]) from error
    faults += broken
    entries: list[Entry] = []
    first_lines: dict[Path, int] = {}
    for number, facts in lines.items():
        where = f"{path}, line {number}"
        entry = _entry(facts, number, where, path.parent, pictures, faults, missing)
        if entry is None:
            continue
        first = first_lines.setdefault(entry.picture, number)
        if first != number:
            faults.append(f"{where}: {entry.picture.name} is in line {first} already; a picture has one line.")
        if missing != "skip" or entry.picture.is_file():
            entries.append(entry)
    if not first_lines and not faults:
        faults.append(f"{path}: no line in it; expected one JSON object a line with 'picture' and 'prompt'.")
    elif not entries and not faults:
        faults.append(f"{pictures}: none of the {len(first_lines)} pictures of {path} is there.")
    if faults:
        raise UserErrors(faults)
    return entries


def _entry(
    facts: Any, number: int, where: str, folder: Path, pictures: Path, faults: list[str], missing: str
) -> Entry | None:
    fields = checked_entry(PromptEntry, facts, where, faults)
    if fields is None:
        return None
    entry = Entry(
        number,
        pictures / fields.picture,
        fields.prompt,
        fields.relation.strip(),
        tuple(folder / name for name in fields.references),
        tuple(fields.names),
        fields.plan,
        tuple(map(tuple, fields.boxes)),
        tuple(tuple(folder / name for name in views) for views in fields.views),
        tuple(Question(one.text, one.wanted, tuple(one.parents)) for one in fields.questions),
        fields.symmetric,
        fields.seed,
        fields.id,
        fields.set,
        fields.task,
    )
    files = [*entry.references, *(file for views in entry.views for file in views)]
    needed = dict.fromkeys([entry.picture, *files] if missing == "fault" else files)
    faults += [f"{where}: {file} is missing." for file in needed if not file.is_file()]
    return entry
