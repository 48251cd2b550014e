"""Prompts for the engines, and the sentence of the triplet, from the texts of a wording file."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from core.prompt.articles import correct_articles
from core.user_files import read_text

from ..common.errors import UserErrors
from ..common.schema import Checked, Words
from ..common.toml_config import read_settings
from .scenes import MOST_SUBJECTS, Scene, pick

FOLDER = Path(__file__).parent
_MARKS = {2: ("[LEFT]", "[RIGHT]"), 3: ("[LEFT]", "[MIDDLE]", "[RIGHT]")}  # In-Context LoRA's
_COUNTS = {2: "two", 3: "three", 4: "four"}
_COMMON = {"relation", "place", *"abc"}
_FIELDS = {
    **dict.fromkeys(("caption", "target", "compose", "panel_target"), _COMMON),
    **dict.fromkeys(("edit", "panel_subject"), {"name", "pose", "place", "gone"}),
    "gone": {"other"},
    "subject": {"a", "name", "pose", "place"},
    "panels": {"count", "subjects", "parts"},
}
PerCount = list[Words]


class Wording(Checked):
    """A wording file; see `wording.toml` for what each text is."""

    caption: PerCount = Field(min_length=MOST_SUBJECTS, max_length=MOST_SUBJECTS, description="three sentences")
    target: PerCount = Field(min_length=MOST_SUBJECTS, max_length=MOST_SUBJECTS, description="three prompts")
    edit: Words
    gone: str
    subject: Words
    compose: PerCount = Field(min_length=MOST_SUBJECTS, max_length=MOST_SUBJECTS, description="three prompts")
    panels: Words
    panel_target: PerCount = Field(min_length=MOST_SUBJECTS, max_length=MOST_SUBJECTS, description="three parts")
    panel_subject: Words
    negative: str
    looks: list[str] = Field(min_length=1, description="what tells individuals apart")
    poses: list[Words] = Field(min_length=1, description="poses of a subject alone")
    places: list[Words] = Field(min_length=1, description="where pictures are set")

    def contradictions(self) -> list[tuple[str, str]]:
        return [
            (key, fault)
            for key, placeholders in _FIELDS.items()
            for text, missing in _texts_of(getattr(self, key))
            if (fault := _placeholder_fault(text, placeholders - missing))
        ] + [
            ("caption", f'"{text}": expected {{relation}} in it, for the LoRA learns from it.')
            for text in self.caption
            if "{relation}" not in text
        ]


def read_wording(name: str) -> Wording:
    """Read a wording file, or a shipped one by its name.

    Args:
        name: a path; `miniworld`; or nothing for the default.

    Raises:
        UserErrors: everything that is wrong with it.
    """
    shipped = FOLDER / ("wording.toml" if not name else f"wording_{name}.toml")
    path = shipped if shipped.is_file() else Path(name)
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserErrors(f"--wording {name}: {error}") from error
    return read_settings(Wording, path, text, (), lambda settings: [])


def caption(words: Wording, scene: Scene) -> str:
    """Write the triplet's sentence: names without their looks, the relation, the place."""
    return _fill(words.caption[len(scene.names) - 1], scene, scene.names, place=_places(words, scene)[0])


def target_prompt(words: Wording, scene: Scene) -> str:
    """Ask for the picture of the relation, from text alone."""
    return _fill(words.target[len(scene.names) - 1], scene, _with_looks(words, scene), place=_places(words, scene)[0])


def compose_prompt(words: Wording, scene: Scene) -> str:
    """Ask for the picture of the relation, from pictures of its subjects."""
    return _fill(words.compose[len(scene.names) - 1], scene, _with_looks(words, scene), place=_places(words, scene)[0])


def edit_prompt(words: Wording, scene: Scene, subject: int) -> str:
    """Ask for one subject alone, from the picture of the relation."""
    others = [name for index, name in enumerate(scene.names) if index != subject]
    return _fill_alone(
        words.edit, words, scene, subject, gone="".join(words.gone.format(other=name) for name in others)
    )


def subject_prompt(words: Wording, scene: Scene, subject: int) -> str:
    """Ask for one subject alone, from text."""
    return _fill_alone(words.subject, words, scene, subject, a=_with_looks(words, scene)[subject])


def panels_prompt(words: Wording, scene: Scene) -> str:
    """Ask for one wide picture: the relation, then each subject alone."""
    looks, count = _with_looks(words, scene), len(scene.names)
    first = _fill(words.panel_target[count - 1], scene, looks, place=_places(words, scene)[0])
    parts = [first, *(_fill_alone(words.panel_subject, words, scene, subject) for subject in range(count))]
    marks = _MARKS.get(len(parts), tuple(f"[PANEL-{number}]" for number in range(1, len(parts) + 1)))
    return correct_articles(
        words.panels.format(
            count=_COUNTS[len(parts)],
            subjects=" and the same ".join(looks),
            parts="; ".join(f"{mark} {part}" for mark, part in zip(marks, parts)),
        )
    )


def _fill(text: str, scene: Scene, names: Sequence[str], **more: str) -> str:
    return correct_articles(text.format(relation=scene.relation, **dict(zip("abc", names)), **more))


def _fill_alone(text: str, words: Wording, scene: Scene, subject: int, **more: str) -> str:
    place = _places(words, scene)[subject + 1]
    pose = pick(words.poses, len(scene.names), scene.seed, "pose")[subject]
    values = {"name": scene.names[subject], "pose": pose, "place": place, "gone": "", **more}
    return correct_articles(text.format(**values))


def _places(words: Wording, scene: Scene) -> tuple[str, ...]:
    """Pick the target's place, then each subject's."""
    return pick(words.places, len(scene.names) + 1, scene.seed, "place")


def _with_looks(words: Wording, scene: Scene) -> list[str]:
    """Turn "wolf" into "wolf with a red scarf"."""
    looks = pick(words.looks, len(scene.names), scene.seed, "look")
    return [f"{name} {look}".strip() for name, look in zip(scene.names, looks)]


def _texts_of(value: str | list[str]) -> list[tuple[str, set[str]]]:
    """List the texts of a key, each with the subjects that it cannot name: of a list the first is for one subject."""
    return [(value, set())] if isinstance(value, str) else [(text, set("abc"[n:])) for n, text in enumerate(value, 1)]


def _placeholder_fault(text: str, allowed: set[str]) -> str:
    """Say what is wrong with the {placeholders} of a text, or nothing."""
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        return f'"{text}": {error}.'
    unknown = sorted(names - allowed)
    return f'"{text}": {{{unknown[0]}}} is unknown here; known: {", ".join(sorted(allowed))}.' if unknown else ""
