"""Add references to the value of a RELATE_REFERENCES socket, which holds them in the order of their slots."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ...core.routing.image_prep import prepare
from ...core.routing.token_layout import MAX_REFERENCES, Reference, next_slot, with_reference
from .subject_images import read_photographs

log = logging.getLogger(__name__)


def add_references(
    references: tuple[Reference, ...],
    image: Tensor,
    vae,
    task: str,
    resolution: int,
    mask: Tensor | None,
    region: Tensor | None,
    weight: float,
    slot: int,
) -> tuple[tuple[Reference, ...], Tensor]:
    """Make one reference of each picture of the batch.

    Returns:
        All references, and the prepared pictures (V, h, w, 3); V pictures of one batch have one size.

    Raises:
        ValueError: too many references, an empty mask or region, a picture that is no numbers, another VAE.
    """
    # room for all of the batch
    first = slot or next_slot(references)
    who = f"reference {first}"
    if len(references) + image.shape[0] > MAX_REFERENCES or first + image.shape[0] - 1 > MAX_REFERENCES:
        raise ValueError(
            f"{who}: expected at most {MAX_REFERENCES} references and slots up to {MAX_REFERENCES}, got "
            f"{len(references)} and {image.shape[0]} more from slot {first} on. Leave some out; each "
            "picture of a batch counts as one."
        )

    # cut out and resize as the model was trained
    try:
        photographs, masks = read_photographs(image, mask)
        pictures = [
            prepare(photograph, None if masks is None else masks[view], task, resolution)
            for view, photograph in enumerate(photographs)
        ]
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from error
    if task == "identity" and masks is None:
        log.warning(
            "Relate: %s is an identity without a mask; the whole picture is kept. Connect a mask of the face "
            "and hair to have it cut out as DreamO was trained.",
            who,
        )

    # encode, each in the next free slot
    region = _region(region, who)
    for picture in pictures:
        references = with_reference(
            references, _encoded(vae, picture, task, slot or next_slot(references), region, weight)
        )
        slot = slot and slot + 1
    return references, torch.stack(pictures).movedim(1, -1)


def _encoded(vae, picture: Tensor, task: str, slot: int, region: Tensor | None, weight: float) -> Reference:
    from ..host_comfy.flux import references as flux_references

    return Reference(flux_references.encode_picture(vae, picture), task, slot, region, weight)


def _region(region: Tensor | None, who: str) -> Tensor | None:
    """Convert a MASK socket's mask, (1, H, W) or (H, W), to (H, W) on the CPU."""
    if region is None:
        return None
    if region.ndim == 3 and region.shape[0] == 1:
        region = region[0]
    if region.ndim != 2 or 0 in region.shape:
        raise ValueError(f"{who}: region: expected one mask (height, width), got {tuple(region.shape)}.")
    if not torch.isfinite(region).all():
        raise ValueError(f"{who}: region: expected numbers in [0, 1], got NaN or infinity.")
    return region.float().cpu().clamp(0, 1)
