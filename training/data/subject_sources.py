"""Pictures of named subjects, from triplets or a COCO set, checked before anything is trained (arXiv:2307.11410, A.1).

Which boxes of a detection set are taken follows the released loader, where it is right: a share of the picture, not
too long, mostly filled by the thing itself (it counts the background too), not inside one that was taken already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from core.prompt.articles import with_article
from core.prompt.name_tokens import mentions
from core.subject.fused_prompt import fused_prompt

from ..common.errors import UserErrors, first_few
from ..common.image_files import open_mask
from ..config.subject import AdapterConfig, SubjectDataConfig
from .coco import AnnotatedPicture, Thing, area_of, read_coco
from .dataset import load_triplets
from .subject_scenes import SubjectScene
from .triplet import Triplet

LONGEST_SIDE, LEAST_FILLED, MOST_INSIDE = 3.0, 0.6, 0.8  # the released loader's
_MOST = 10  # faults of a set that are spelled out


def load_scenes(config: SubjectDataConfig, adapter: AdapterConfig, seed: int) -> list[SubjectScene]:
    """Read the pictures that a config names.

    Raises:
        UserErrors: everything that is wrong with them, in one report.
    """
    if config.folder:
        scenes = [_of_triplet(triplet, config) for triplet in load_triplets(config, "", seed)]
        faults = [fault for scene in scenes for fault in _triplet_faults(scene, adapter)]
    else:
        scenes, faults = _coco_scenes(config, adapter.max_subjects)
    faults += [fault for scene in scenes for fault in _prompt_faults(scene, adapter)]
    if faults:
        raise UserErrors(first_few(faults, _MOST))
    return scenes


def _of_triplet(triplet: Triplet, config: SubjectDataConfig) -> SubjectScene:
    return SubjectScene(
        triplet.name,
        triplet.target,
        triplet.facts.size,
        triplet.prompt,
        triplet.names,
        triplet.facts.boxes,
        tuple(_opened(path) for path in triplet.masks),
        triplet.concepts if config.references == "concepts" else (),
        sha256(
            repr((triplet.facts.digests, triplet.facts.boxes.tolist(), triplet.prompt, triplet.names)).encode()
        ).hexdigest(),
    )


def _opened(path: Path) -> Callable[[int, int], np.ndarray]:
    return lambda width, height: open_mask(path)


def _coco_scenes(config: SubjectDataConfig, most: int) -> tuple[list[SubjectScene], list[str]]:
    """List the set's pictures that show a subject clearly, and what is wrong with it."""
    instances = Path(config.coco)
    pictures = Path(config.pictures) if config.pictures else instances.parent
    annotated = read_coco(instances, pictures, Path(config.captions) if config.captions else None)
    scenes: list[SubjectScene] = []
    faults: list[str] = []
    for picture in annotated:
        try:
            if scene := _of_picture(picture, config, most):
                scenes.append(scene)
        except ValueError as error:
            faults.append(f"{picture.path.name}: {error}")
    if not scenes and not faults:
        faults.append(
            f"{instances}: none of its {len(annotated)} pictures has a thing of {config.least_area:g} to "
            f"{config.most_area:g} of the picture that is not too long or too empty; see data.least_area, "
            "data.most_area."
        )
    return scenes, faults


def _of_picture(picture: AnnotatedPicture, config: SubjectDataConfig, most: int) -> SubjectScene | None:
    """Take the largest things that the loader's rules allow, as many as the adapter knows; None if there is none."""
    things: list[Thing] = []
    for thing in sorted(picture.things, key=lambda thing: -area_of(thing.box)):
        if len(things) < most and _is_clear(thing, picture.size, config):
            if all(_inside(thing.box, other.box) <= MOST_INSIDE for other in things):
                things.append(thing)
    if not things:
        return None
    names = tuple(thing.name for thing in things)
    caption = picture.caption or f"a photo of {' and '.join(map(with_article, names))}"
    facts = repr((picture.path.name, picture.path.stat().st_size, caption, [vars(thing) for thing in things]))
    return SubjectScene(
        picture.path.name,
        picture.path,
        picture.size,
        caption,
        names,
        torch.tensor([thing.box for thing in things], dtype=torch.float32),
        tuple(thing.mask for thing in things),
        (),
        sha256(facts.encode()).hexdigest(),
    )


def _inside(a: Sequence[float], b: Sequence[float]) -> float:
    """Compute the intersection over the smaller of two boxes."""
    shared = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return area_of(shared) / max(min(area_of(a), area_of(b)), 1e-9)


def _is_clear(thing: Thing, size: tuple[int, int], config: SubjectDataConfig) -> bool:
    area, (width, height) = area_of(thing.box), size
    if not config.least_area <= area <= config.most_area:
        return False
    wide, high = (thing.box[2] - thing.box[0]) * width, (thing.box[3] - thing.box[1]) * height
    if not 1 / LONGEST_SIDE < wide / high < LONGEST_SIDE:
        return False
    return bool(thing.mask(width, height).sum() / (area * width * height) >= LEAST_FILLED)


def _triplet_faults(scene: SubjectScene, adapter: AdapterConfig) -> list[str]:
    where, faults = f"triplet {scene.name}", []
    if len(scene.names) > adapter.max_subjects:
        faults.append(
            f"{where}: {len(scene.names)} subjects ({', '.join(scene.names)}), adapter.max_subjects is "
            f"{adapter.max_subjects}. Raise it, or leave the triplet out."
        )
    faults += [
        f"{where}: its prompt {scene.prompt!r} does not name '{name}'. Use the same words in both."
        for name in scene.names
        if not mentions(scene.prompt, name)
    ]
    return faults


def _prompt_faults(scene: SubjectScene, adapter: AdapterConfig) -> list[str]:
    try:
        fused_prompt(scene.prompt, scene.names, adapter.placeholder)
    except ValueError as error:
        return [f"{scene.name}: {error} Or choose another adapter.placeholder."]
    return []
