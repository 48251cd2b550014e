"""From a scene and a prompt to the inputs of a sampler of the scene's engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.prompt.wording import AS_WRITTEN, BoundPrompt, Mention, bind
from ...core.scene import WHOLE_PICTURE, Scene, Subject
from ..host_comfy.scene import detection, dreamo, pictures, sdxl, steer
from ..host_comfy.scene.engines import Engine
from ..host_comfy.scene.pictures import ReferenceImage
from ..host_comfy.scene.recording_clip import with_text_positions
from ..host_comfy.scene.wiring import WIRE, Request, Wiring

log = logging.getLogger(__name__)

_SCALED_BY_HAND = ("dreamo", "flux2", "kontext", "krea2", "longcat", "omnigen2", "z_image_omni")
APPLIED_KEY = "relate_scene"


@dataclass(frozen=True)
class SceneSettings:
    """The widgets of Apply Scene; see its schema.

    Attributes:
        width, height: of the output in pixels.
        strength: of the steering, in nats.
        window: fractions of the schedule in which it acts.
        engine: "auto", or an engine's name.
        wording: one of ``core.prompt.wording.WORDINGS``.
        photographs: "first" or "all" of each subject's.
        megapixels: of a reference; 0 for the engine's own.
        negative: text.
        batch_size: pictures to draw.
    """

    width: int
    height: int
    strength: float
    window: tuple[float, float]
    engine: str
    wording: str
    photographs: str
    megapixels: float
    negative: str
    batch_size: int


@dataclass(frozen=True, eq=False)
class AppliedScene:
    """The outputs of Apply Scene.

    Attributes:
        model: MODEL.
        wiring: CONDITIONING of both sides, and the latent.
        prompt: as it was encoded.
        references: (1, h, w, 3) each; one white picture where there are none, as a list output may not be empty.
    """

    model: Any
    wiring: Wiring
    prompt: str
    references: list[Tensor]


def apply_scene(
    model, clip, vae, scene: Scene, prompt: str, settings: SceneSettings, identity_model=None, clip_vision=None
) -> AppliedScene:
    """Wire a scene as its engine is wired, its references kept in their subjects' boxes.

    Raises:
        ValueError: whatever does not fit; see ``host_comfy.scene.detection``.
    """
    # 1. which engine, and does everything fit it
    scene.check_subjects()
    engine = detection.detect_engine(model, settings.engine)
    if model.get_attachment(APPLIED_KEY) is not None:
        raise ValueError(
            "model: it already comes from an Apply Scene, whose references it carries. Connect the model "
            "loader's MODEL; put all subjects into one scene."
        )
    subjects = pictures.referenced_subjects(scene)
    images = pictures.reference_images(subjects, settings.photographs, engine.most)
    detection.check_count(engine, len(subjects), len(images), settings.batch_size)
    detection.check_clip(engine, clip)
    detection.check_vae(engine, model, vae)
    _warn(engine, settings, subjects)

    # 2. name each reference in the prompt
    bound = _bind(engine, clip, prompt, subjects, images, settings.wording)

    # 3. the engine's own wiring
    start, end = settings.window
    strength = settings.strength if start < end else 0.0
    steered = strength > 0 or any(subject.weight != 1 for subject in subjects)
    request = Request(
        model,
        with_text_positions(clip) if steered else clip,
        vae,
        images,
        bound.text,
        settings.negative,
        settings.width,
        settings.height,
        settings.batch_size,
        settings.megapixels,
        clip_vision,
    )
    model, wiring = _wire(engine, request, subjects, strength, settings.window, identity_model, steered)
    model = model.clone()
    model.set_attachments(APPLIED_KEY, engine.name)
    return AppliedScene(
        model, wiring, bound.text, wiring.references or [torch.ones(1, settings.height, settings.width, 3)]
    )


def _wire(
    engine: Engine,
    request: Request,
    subjects: tuple[Subject, ...],
    strength: float,
    window: tuple[float, float],
    identity_model,
    steered: bool,
) -> tuple[Any, Wiring]:
    """Wire the engine's references; steer them where they have boxes or weights."""
    if engine.name == "sdxl":
        return sdxl.apply(request, Scene(subjects), identity_model, strength > 0, window)
    owners = [subjects[image.subject] for image in request.images]
    regions = [pictures.region_of(owner.box, request.width, request.height) for owner in owners]
    weights = [owner.weight for owner in owners]
    if engine.name == "dreamo":
        return dreamo.apply(request, regions, weights, strength, window)
    wiring = WIRE[engine.name](request)
    if not steered or not owners:
        return request.model, wiring
    model, positive, negative = steer.attach_regions(
        request.model,
        wiring.positive,
        wiring.negative,
        regions,
        weights,
        # a subject's further photographs share its name, which keeps it once
        [owner.name if owner not in owners[:index] else "" for index, owner in enumerate(owners)],
        strength,
        window,
    )
    return model, Wiring(positive, negative, wiring.latent, wiring.references)


def _bind(
    engine: Engine, clip, prompt: str, subjects: tuple[Subject, ...], images: list[ReferenceImage], wording: str
) -> BoundPrompt:
    """Name the references in the prompt; warn of each name that it lacks."""
    label = engine.label
    if engine.name == "dreamo" and not dreamo.knows_placeholders(clip):
        label = "image {}"
    numbers: list[list[int]] = [[] for _ in subjects]
    for number, image in enumerate(images, start=1):
        numbers[image.subject].append(number)
    mentions = [
        Mention(subject.name, " and ".join((label or "").format(number) for number in own), subject.box)
        for subject, own in zip(subjects, numbers)
    ]
    bound = bind(prompt, mentions, AS_WRITTEN if label is None else wording)
    for index, name in enumerate(bound.missing if label else ()):  # on SDXL the sampler warns
        remedy = f"added: {bound.added[index]!r}" if bound.added else "name it there as in its Subject node"
        log.warning("Relate: Apply Scene: subject '%s' is not in the prompt %r; %s", name, prompt[:200], remedy)
    return bound


def _warn(engine: Engine, settings: SceneSettings, subjects: tuple[Subject, ...]) -> None:
    """Warn of settings that are allowed and probably a mistake."""
    notices = []
    if settings.megapixels and engine.name not in _SCALED_BY_HAND:
        notices.append(f"reference_size: {engine.title} scales references itself; the setting does nothing.")
    if engine.name == "krea2":
        notices.append("model: Krea 2 was made for text; references act only through an edit LoRA.")
    start, end = settings.window
    if start >= end:
        what = "the subjects do not act" if engine.name == "sdxl" else "references are not kept in their boxes"
        notices.append(f"the window is empty (start_at {start:g}, end_at {end:g}); {what}.")
    elif settings.strength and len(subjects) > 1 and all(subject.box == WHOLE_PICTURE for subject in subjects):
        notices.append(
            f"strength is {settings.strength:g}, but every subject has the whole picture for its box, so none is kept "
            "anywhere. Give each its place in Subject, or draw the boxes with Layout."
        )
    for notice in notices:
        log.warning("Relate: Apply Scene: %s", notice)
