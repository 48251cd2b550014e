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
from . import wording
from .panels import cut_panels
from .request import EDIT, PANELS, TEXT, Request
from .scenes import Scene
from .wording import Wording

Draw = Callable[[Request], Path]


@dataclass(frozen=True)
class RawPictures:
    """Pictures of one triplet, drawn by a recipe.

    Attributes:
        target: the relation, RGB.
        subjects: each alone, RGB, in the order of the names.
        files: of the pictures as they were drawn.
    """

    target: Image.Image
    subjects: tuple[Image.Image, ...]
    files: tuple[Path, ...] = field(default=())


def target_first(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw the relation, then edit it into each subject alone."""
    target = draw(Request(TEXT, wording.target_prompt(words, scene), words.negative, size, size, scene.seed, scene))
    alone = [
        draw(_subject_request(EDIT, wording.edit_prompt(words, scene, index), words, scene, index, size, (target,)))
        for index in range(len(scene.names))
    ]
    return _open_pictures(target, alone)


def panels(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw everything side by side and cut it.

    Raises:
        NotUsable: no lines between the panels.
    """
    count = 1 + len(scene.names)
    prompt = wording.panels_prompt(words, scene)
    whole = draw(Request(PANELS, prompt, words.negative, size * count, size, scene.seed, scene))
    target, *alone = cut_panels(open_image(whole), count)
    return RawPictures(target, tuple(alone), (whole,))


def subjects_first(scene: Scene, words: Wording, size: int, draw: Draw) -> RawPictures:
    """Draw each subject alone, then compose the relation of them."""
    alone = [
        draw(_subject_request(TEXT, wording.subject_prompt(words, scene, index), words, scene, index, size))
        for index in range(len(scene.names))
    ]
    prompt = wording.compose_prompt(words, scene)
    target = draw(Request(EDIT, prompt, words.negative, size, size, scene.seed, scene, None, tuple(alone)))
    return _open_pictures(target, alone)


def _subject_request(
    role: str, prompt: str, words: Wording, scene: Scene, index: int, size: int, images: tuple[Path, ...] = ()
) -> Request:
    """Ask for one subject alone, its noise other than the target's."""
    return Request(role, prompt, words.negative, size, size, scene.seed + 1 + index, scene, index, images)


def _open_pictures(target: Path, alone: list[Path]) -> RawPictures:
    return RawPictures(open_image(target), tuple(map(open_image, alone)), (target, *alone))


@dataclass(frozen=True)
class Recipe:
    """One way to draw a triplet.

    Attributes:
        draw: takes the scene, the wording, the size in pixels, and a function that draws requests.
        roles: from the number of subjects to the roles it needs, each with the pictures that a request brings along.
    """

    draw: Callable[[Scene, Wording, int, Draw], RawPictures]
    roles: Callable[[int], Mapping[str, int]]


RECIPES = {
    "target-first": Recipe(target_first, lambda subjects: {TEXT: 0, EDIT: 1}),
    "panels": Recipe(panels, lambda subjects: {PANELS: 0}),
    "subjects-first": Recipe(subjects_first, lambda subjects: {TEXT: 0, EDIT: subjects}),
}
