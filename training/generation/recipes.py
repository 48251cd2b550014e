"""Three ways from a scene to a target and a picture of each subject.

target-first    words to target, then an edit of it for each subject: the relation is what text-to-image draws best;
                what is hidden in the target is invented
panels          one wide picture, cut: no edit model, identities shared by attention; lower resolution
subjects-first  words to each subject, then one picture composed of them: what models of several references do worst
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..common.image_files import open_image
from . import wording as say
from .panels import cut_panels
from .request import EDIT, PANELS, TEXT, Request
from .scenes import Scene
from .wording import Wording

Draw = Callable[[Request], Path]


@dataclass(frozen=True)
class RawPictures:
    """What a recipe gives.

    Attributes:
        target: the relation, RGB.
        subjects: each alone, RGB, in the order of the names.
        files: what they were drawn as.
    """

    target: Image.Image
    subjects: tuple[Image.Image, ...]
    files: tuple[Path, ...] = field(default=())


def target_first(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw the relation, then edit it into each subject alone."""
    target = draw(Request(TEXT, say.target_prompt(words, scene), words.negative, size, size, scene.seed, scene))
    alone = [
        draw(
            Request(
                EDIT,
                say.edit_prompt(words, scene, index),
                words.negative,
                size,
                size,
                scene.seed + 1 + index,
                scene,
                index,
                (target,),
            )
        )
        for index in range(len(scene.names))
    ]
    return _opened(target, alone)


def panels(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw everything side by side and cut it.

    Raises:
        NotUsable: no lines between the panels.
    """
    count = 1 + len(scene.names)
    whole = draw(
        Request(PANELS, say.panels_prompt(words, scene), words.negative, size * count, size, scene.seed, scene)
    )
    target, *alone = cut_panels(open_image(whole), count)
    return RawPictures(target, tuple(alone), (whole,))


def subjects_first(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw each subject alone, then compose the relation of them."""
    alone = [
        draw(
            Request(
                TEXT,
                say.subject_prompt(words, scene, index),
                words.negative,
                size,
                size,
                scene.seed + 1 + index,
                scene,
                index,
            )
        )
        for index in range(len(scene.names))
    ]
    prompt = say.compose_prompt(words, scene)
    target = draw(Request(EDIT, prompt, words.negative, size, size, scene.seed, scene, None, tuple(alone)))
    return _opened(target, alone)


def _opened(target: Path, alone: list[Path]) -> RawPictures:
    return RawPictures(open_image(target), tuple(map(open_image, alone)), (target, *alone))


@dataclass(frozen=True)
class Recipe:
    """A way to a triplet.

    Attributes:
        draw: scene, wording, size in pixels and a way to draw requests to pictures.
        roles: the roles it asks for, each with the pictures a request brings along for so many subjects.
    """

    draw: Callable[[Scene, Wording, int, Draw], RawPictures]
    roles: Callable[[int], Mapping[str, int]]


RECIPES = {
    "target-first": Recipe(target_first, lambda subjects: {TEXT: 0, EDIT: 1}),
    "panels": Recipe(panels, lambda subjects: {PANELS: 0}),
    "subjects-first": Recipe(subjects_first, lambda subjects: {TEXT: 0, EDIT: subjects}),
}
