"""A triplet with its images decoded, each file read once, and what only the images show to be wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..common.errors import UserErrors
from ..common.image_files import open_image, open_mask
from .keypoint_matching import assign_keypoints_to_masks
from .square_crop import box_of
from .triplet import ImageFacts, Triplet
from .triplet_entries import box_misfits

log = logging.getLogger(__name__)
_SMALLEST = 16  # pixels a side: two latents; less is a thumbnail taken for a picture


@dataclass(frozen=True, eq=False)
class LoadedTriplet:
    """A triplet with its images decoded.

    Attributes:
        triplet: with its facts.
        target: RGB.
        photographs: one RGB image per subject.
        masks: (H, W) bool of the target per subject, or none at all.
    """

    triplet: Triplet
    target: Image.Image
    photographs: tuple[Image.Image, ...]
    masks: tuple[np.ndarray, ...]


def load_images(triplet: Triplet) -> LoadedTriplet:
    """Read and decode every file of a triplet once.

    Raises:
        UserErrors: every image that cannot be decoded or is too small, every mask without its subject, of another size
            than the target, or elsewhere than the box given beside it.
    """
    faults: list[str] = []
    digests: list[str] = []

    def opened(path: Path, decode: Callable[[Path, bytes], Any]) -> Any:
        try:
            data = path.read_bytes()
            digests.append(sha256(data).hexdigest())
            return decode(path, data)
        except (OSError, ValueError) as error:
            faults.append(str(error))

    target = opened(triplet.target, open_image)
    photographs = tuple(opened(path, open_image) for path in triplet.concepts)
    masks = tuple(opened(path, open_mask) for path in triplet.masks)
    faults += _misfits(triplet, target, photographs, masks)
    if faults:
        raise UserErrors(faults)
    boxes = torch.stack([box_of(mask) for mask in masks]) if triplet.boxes is None else triplet.boxes
    facts = ImageFacts(target.size, boxes, tuple(digests))
    return LoadedTriplet(replace(triplet, facts=facts), target, photographs, masks)


def _misfits(
    triplet: Triplet,
    target: Image.Image | None,
    photographs: Sequence[Image.Image | None],
    masks: Sequence[np.ndarray | None],
) -> list[str]:
    """Return what does not fit among those images that could be decoded; the others are None."""
    files = zip((triplet.target, *triplet.concepts), (target, *photographs))
    faults = [
        f"{path}: expected at least {_SMALLEST} pixels a side, got {image.width} x {image.height}."
        for path, image in files
        if image and min(image.size) < _SMALLEST
    ]
    for index, (path, mask) in enumerate(zip(triplet.masks, masks)):
        if mask is None or target is None:
            continue
        if mask.shape != (target.height, target.width):
            faults.append(
                f"{path}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its target {target.width} x "
                f"{target.height}; expected the same size."
            )
        elif triplet.boxes is not None:
            name, box = triplet.names[index], triplet.boxes[index]
            faults += [f"{path}: {fault}" for fault in box_misfits(name, box, box_of(mask))]
    return faults


def in_order(images: LoadedTriplet, match: bool) -> LoadedTriplet:
    """Keep one skeleton of the target per subject: the first S, or those that the masks name.

    Raises:
        UserErrors: more subjects or skeletons than can be matched.
    """
    triplet = images.triplet
    order = tuple(range(len(triplet.names)))
    if match and triplet.masks and triplet.keypoints_target.shape[1] and len(triplet.keypoints_target) > 1:
        try:
            order, sentence = assign_keypoints_to_masks(triplet.keypoints_target, np.stack(images.masks))
        except ValueError as error:
            raise UserErrors(f"triplet {triplet.name}: {error}") from error
        if sentence:
            log.info("triplet %s (%s): %s.", triplet.name, ", ".join(triplet.names), sentence)
    return replace(images, triplet=replace(triplet, keypoints_target=triplet.keypoints_target[list(order)]))
