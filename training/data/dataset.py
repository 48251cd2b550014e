"""Triplets on disk to squares of pixels with boxes, regions and keypoints that fit them exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..common.errors import UserErrors
from ..common.image_files import to_tensor
from ..common.seeds import seeded_generator
from ..config import DataConfig
from .loaded_triplet import LoadedTriplet, in_order, load_images
from .square_crop import SquareCrop, box_of
from .triplet import Triplet
from .triplets import read_triplets


@dataclass(frozen=True, eq=False)
class Example:
    """One square crop of one triplet with S subjects and P joints.

    Attributes:
        triplet: where it comes from; its target skeletons are in the subjects' order.
        target: (3, px, px) in [0, 1].
        concepts: (S, 3, px, px) in [0, 1], each cropped as the target is.
        photographs: S whole pictures (3, H, W) in [0, 1], for CLIP.
        boxes: (S, 4) fractions of the square.
        region: (px/8, px/8) 1 where a subject is, at least half of the cell.
        shares: (S, px/16, px/16) share of each cell that a subject covers, by its mask or its box.
        keypoints_target, keypoints_concepts: (S, P, 2) fractions of their squares.
        visible: (S, P) bool: seen in both pictures and inside both squares.
        time_ids: (6,) SDXL's micro-conditioning.
    """

    triplet: Triplet
    target: Tensor
    concepts: Tensor
    photographs: tuple[Tensor, ...]
    boxes: Tensor
    region: Tensor
    shares: Tensor
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    visible: Tensor
    time_ids: Tensor


def load_triplets(config: DataConfig, relation: str, seed: int = 0) -> list[Triplet]:
    """Read a folder, decode every image once, and put the skeletons in the subjects' order.

    Args:
        config: the folder, and the squares that will be cut.
        relation: its name.
        seed: of the crops.

    Raises:
        UserErrors: all of all triplets, also of the squares that training would cut from them.
    """
    triplets, faults = [], []
    for triplet in read_triplets(config.folder, relation):
        try:
            images = in_order(load_images(triplet), config.match_skeletons)
            counts = [int(_annotate(images, config, crop, seed).visible.sum()) for crop in range(config.crops)]
        except UserErrors as error:
            faults += error.messages
        else:
            facts = replace(images.triplet.facts, visible_joints=sum(counts))
            triplets.append(replace(images.triplet, facts=facts))
    if faults:
        raise UserErrors(faults)
    return triplets


def dataset_sha256(triplets: Sequence[Triplet]) -> str:
    """Hash of every picture and annotation, in order; file names do not count."""
    digest = sha256()
    for triplet in triplets:
        for file_digest in triplet.facts.digests:
            digest.update(bytes.fromhex(file_digest))
        digest.update(annotation_bytes(triplet))
    return digest.hexdigest()


def annotation_bytes(triplet: Triplet) -> bytes:
    """Return everything about a triplet that is not in its pictures, as JSON."""
    boxes = None if triplet.boxes is None else triplet.boxes.tolist()
    annotations = [
        triplet.prompt,
        triplet.predicate,
        triplet.names,
        boxes,
        triplet.keypoints_target.tolist(),
        triplet.keypoints_concepts.tolist(),
    ]
    return json.dumps(annotations).encode()


def crop_of(triplet: Triplet, config: DataConfig, crop: int, seed: int) -> SquareCrop:
    """Place crop number ``crop`` of a triplet: 0 is the middle, the others are drawn from the seed."""
    width, height = triplet.facts.size
    if crop == 0:
        return SquareCrop.centred(width, height, config.fit)
    boxes = triplet.facts.boxes
    keep = torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))
    return SquareCrop.random(width, height, config.fit, keep, seeded_generator(f"{seed}/{triplet.name}/{crop}"))


@dataclass(frozen=True, eq=False)
class _Annotations:
    """What one square has of a triplet's annotations; see `Example`."""

    place: SquareCrop
    concept_places: tuple[SquareCrop, ...]
    masks: tuple[np.ndarray, ...]
    boxes: Tensor
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    visible: Tensor


def _annotate(images: LoadedTriplet, config: DataConfig, crop: int, seed: int) -> _Annotations:
    """Carry every annotation into a square.

    Raises:
        UserErrors: a subject lies outside the square.
    """
    # 1. the target: masks, boxes
    triplet = images.triplet
    place = crop_of(triplet, config, crop, seed)
    masks = tuple(place.mask(mask) for mask in images.masks)
    boxes = place.boxes(triplet.facts.boxes)
    if triplet.boxes is None:
        boxes = torch.stack([torch.zeros(4) if box_of(mask) is None else box_of(mask) for mask in masks])
    outside = [name for name, box in zip(triplet.names, boxes) if box[2] <= box[0] or box[3] <= box[1]]
    if outside:
        hint = ' Use data.fit = "pad".' if config.fit == "crop" else ""
        raise UserErrors(
            f"triplet {triplet.name}: {', '.join(outside)} lies outside the square that data.fit = "
            f'"{config.fit}" cuts from {triplet.target.name}.{hint}'
        )
    # 2. the concepts, and the joints that both squares show
    concept_places = tuple(SquareCrop.centred(*photograph.size, config.fit) for photograph in images.photographs)
    target_points = place.points(triplet.keypoints_target[..., :2])
    concept_points = torch.stack(
        [where.points(points[..., :2]) for where, points in zip(concept_places, triplet.keypoints_concepts)]
    )
    visible = (triplet.keypoints_target[..., 2] > 0) & (triplet.keypoints_concepts[..., 2] > 0)
    return _Annotations(
        place,
        concept_places,
        masks,
        boxes,
        target_points,
        concept_points,
        visible & _inside(target_points) & _inside(concept_points),
    )


def prepare(triplet: Triplet, config: DataConfig, crop: int = 0, seed: int = 0) -> Example:
    """Decode a triplet's images, cut one square and carry every annotation into it.

    Raises:
        UserErrors: an image is gone or broken by now; a subject lies outside the square.
    """
    images, px = load_images(triplet), config.image_px
    annotations = _annotate(images, config, crop, seed)
    return Example(
        triplet=triplet,
        target=to_tensor(annotations.place.crop_image(images.target, px)),
        concepts=torch.stack(
            [
                to_tensor(where.crop_image(photograph, px))
                for where, photograph in zip(annotations.concept_places, images.photographs)
            ]
        ),
        photographs=tuple(to_tensor(photograph) for photograph in images.photographs),
        boxes=annotations.boxes,
        region=_region(annotations.masks, annotations.boxes, px // 8),
        shares=_shares(annotations.masks, annotations.boxes, px // 16),
        keypoints_target=annotations.keypoints_target,
        keypoints_concepts=annotations.keypoints_concepts,
        visible=annotations.visible,
        time_ids=annotations.place.time_ids(px),
    )


def _inside(points: Tensor) -> Tensor:
    """Tell which points lie in the square; x = 1 and y = 1, the last edges, still count."""
    return ((points >= 0) & (points <= 1)).all(dim=-1)


def _region(masks: Sequence[np.ndarray], boxes: Tensor, cells: int) -> Tensor:
    """Mark where any subject is, by its mask, or by its box where there is none."""
    if len(masks):
        union = Image.fromarray(np.logical_or.reduce(masks).astype(np.uint8) * 255)
        return (torch.from_numpy(np.asarray(union.resize((cells, cells), Image.Resampling.BOX)).copy()) >= 128).float()
    centres = (torch.arange(cells) + 0.5) / cells
    across = (centres >= boxes[:, 0, None]) & (centres < boxes[:, 2, None])
    down = (centres >= boxes[:, 1, None]) & (centres < boxes[:, 3, None])
    return (down[:, :, None] & across[:, None, :]).any(dim=0).float()


def _shares(masks: Sequence[np.ndarray], boxes: Tensor, cells: int) -> Tensor:
    """Measure how much of each cell every subject covers, (S, cells, cells), by its mask, or by its box."""
    if len(masks):
        whole = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks]
        small = [np.asarray(mask.resize((cells, cells), Image.Resampling.BOX)).copy() for mask in whole]
        return torch.from_numpy(np.stack(small)).float() / 255
    edges = torch.arange(cells + 1) / cells

    def covered(low: Tensor, high: Tensor) -> Tensor:
        inside = torch.minimum(edges[1:], high[:, None]) - torch.maximum(edges[:-1], low[:, None])
        return inside.clamp(min=0) * cells

    return covered(boxes[:, 1], boxes[:, 3])[:, :, None] * covered(boxes[:, 0], boxes[:, 2])[:, None]
