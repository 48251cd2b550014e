"""Keep References in Place: regions from a scene or masks, for the references that a conditioning carries."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.routing.reference_regions import ReferenceRegions
from ...core.routing.routing_map import Recorder, Recording
from ...core.scene import WHOLE_PICTURE, Box, Scene, Subject

log = logging.getLogger(__name__)

REGION_SIDE = 1024  # cells of a box drawn as a mask; it is averaged onto the model's own grid


@dataclass(frozen=True)
class RegionSettings:
    """The widgets of the node.

    Attributes:
        strength, isolation: in nats.
        window: fractions of the schedule.
        record: whether maps are recorded.
    """

    strength: float
    isolation: float
    window: tuple[float, float]
    record: bool


def keep_in_place(
    model, positive: list, negative: list | None, scene: Scene | None, masks: Tensor | None, settings: RegionSettings
) -> tuple:
    """Attach regions to the references; return MODEL, positive, negative, and the recording of a routing map or None.

    Raises:
        ValueError: a conditioning without references, another number of masks or subjects, an empty mask, or a model
            that takes no references.
    """
    from ..host_comfy.references import attach

    count = attach.count_references(model, positive)
    subjects = None if scene is None else subjects_of(scene, count)
    areas = [None] * count if subjects is None else [region_of(subject.box) for subject in subjects]
    if masks is not None:
        areas = regions_of(masks, count)
    weights = (1.0,) * count if subjects is None else tuple(max(0.0, subject.weight) for subject in subjects)
    if settings.strength and all(area is None for area in areas):
        log.warning(
            "Relate: strength is %g, but no reference has a region; connect a scene with boxes, or one mask "
            "for each reference to regions.",
            settings.strength,
        )
    recorder = Recorder() if settings.record else None
    regions = ReferenceRegions(tuple(areas), weights, settings.strength, settings.isolation, settings.window, recorder)
    negative = attach.zeroed(positive) if negative is None else negative
    names = () if subjects is None else tuple(subject.name for subject in subjects)
    sides = attach.attach_regions(model, positive, negative, regions, names)
    return *sides, None if recorder is None else Recording(recorder, tuple(range(1, count + 1)))


def subjects_of(scene: Scene, count: int) -> tuple[Subject, ...]:
    """Select one subject for each reference: all of them, or those of a weight above 0 as Apply Scene takes them.

    Raises:
        ValueError: neither fits.
    """
    acting = tuple(subject for subject in scene.subjects if subject.weight > 0)
    for subjects in (scene.subjects, acting):
        if len(subjects) == count:
            return subjects
    raise ValueError(
        f"scene: expected {count} subjects, one for each reference latent of positive and in their order, "
        f"got {len(scene.subjects)}. Leave subjects out or add them, or connect masks to regions instead."
    )


def region_of(box: Box) -> Tensor | None:
    """(REGION_SIDE, REGION_SIDE) with 1 in a box, fractions of a cell at its edges; None for the whole picture."""
    return None if box == WHOLE_PICTURE else box.cell_shares(REGION_SIDE, REGION_SIDE)


def regions_of(masks: Tensor, count: int) -> list[Tensor]:
    """Check and split the masks of a MASK socket, (R, H, W) or (H, W), one for each reference.

    Raises:
        ValueError: another number, an empty one, or one that is no numbers.
    """
    masks = (masks[None] if masks.ndim == 2 else masks).cpu()  # wherever the node before has left them
    if masks.ndim != 3 or masks.shape[0] != count:
        raise ValueError(
            f"regions: expected {count} masks, one for each reference latent of positive, got "
            f"{masks.shape[0] if masks.ndim == 3 else tuple(masks.shape)}. Put them together with Batch Masks, in "
            "the order of the references."
        )
    if not torch.isfinite(masks).all():
        raise ValueError("regions: expected numbers in [0, 1], got NaN or infinity.")
    empty = [number for number, mask in enumerate(masks, start=1) if not bool((mask > 0).any())]
    if empty:
        raise ValueError(
            f"regions: mask {empty[0]} is empty (black); paint where reference {empty[0]} may act, or "
            "give its subject the weight 0 so that nobody reads it."
        )
    return [mask.float().clamp(0, 1) for mask in masks]
