"""Triplets on disk to squares of pixels with boxes, regions and keypoints that fit them exactly."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..common.errors import Faults
from ..config import DataConfig
from .keypoint_matching import match_skeletons
from .square_crop import Placement, box_of
from .triplets import Triplet, read_triplets

log = logging.getLogger(__name__)


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
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    visible: Tensor
    time_ids: Tensor


def open_picture(path: Path, mode: str = "RGB") -> Image.Image:
    """A whole decoded picture.

    Raises:
        Faults: not there, not a picture, or truncated.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(mode)  # telephones turn pictures by a note in the file
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Faults(f"{path}: not a whole picture ({error}). Save it again as PNG or JPEG.") from error


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def load_triplets(config: DataConfig, relation: str) -> list[Triplet]:
    """Read a folder, open every picture once, and put the skeletons in the subjects' order.

    Raises:
        Faults: all of all triplets.
    """
    triplets = read_triplets(config.folder, relation)
    faults: list[str] = []
    for triplet in triplets:
        faults += _broken(triplet)
    if faults:
        raise Faults(faults)
    return [_in_order(triplet, config.match_skeletons) for triplet in triplets]


def _broken(triplet: Triplet) -> list[str]:
    """Pictures that cannot be read and masks that do not fit."""
    faults = []
    sizes = {}
    for path in triplet.files():
        try:
            sizes[path] = open_picture(path).size
        except Faults as error:
            faults += error.found
    for path in triplet.masks:
        if path not in sizes or triplet.target not in sizes:
            continue
        if sizes[path] != sizes[triplet.target]:
            faults.append(f"{path}: the mask is {sizes[path][0]} x {sizes[path][1]} pixels, its target "
                          f"{sizes[triplet.target][0]} x {sizes[triplet.target][1]}; expected the same size.")
        elif not _mask(path).any():
            faults.append(f"{path}: the mask is empty; expected white where the subject is.")
    return faults


def _mask(path: Path) -> np.ndarray:
    return np.asarray(open_picture(path, "L")) > 127


def _in_order(triplet: Triplet, match: bool) -> Triplet:
    """The first S skeletons, or those that the masks name."""
    order = tuple(range(len(triplet.names)))
    if match and triplet.masks and triplet.keypoints_target.shape[1] and len(triplet.keypoints_target) > 1:
        try:
            order, sentence = match_skeletons(triplet.keypoints_target, np.stack([_mask(p) for p in triplet.masks]))
        except ValueError as error:
            raise Faults(f"triplet {triplet.name}: {error}") from error
        if sentence:
            log.info("triplet %s (%s): %s.", triplet.name, ", ".join(triplet.names), sentence)
    return Triplet(**{**vars(triplet), "keypoints_target": triplet.keypoints_target[list(order)]})


def dataset_sha256(triplets: Sequence[Triplet]) -> str:
    """Hash of every picture and annotation, in order; file names do not count."""
    digest = sha256()
    for triplet in triplets:
        for path in triplet.files():
            digest.update(sha256(path.read_bytes()).digest())
        digest.update(annotation_bytes(triplet))
    return digest.hexdigest()


def annotation_bytes(triplet: Triplet) -> bytes:
    """Everything about a triplet that is not in its pictures."""
    boxes = None if triplet.boxes is None else triplet.boxes.tolist()
    told = [triplet.prompt, triplet.predicate, triplet.names, boxes, triplet.keypoints_target.tolist(),
            triplet.keypoints_concepts.tolist()]
    return json.dumps(told).encode()


def placement_of(triplet: Triplet, config: DataConfig, crop: int, seed: int) -> Placement:
    """Where crop number ``crop`` of a triplet lies: 0 is the middle, the others are drawn from the seed."""
    width, height = open_picture(triplet.target).size
    if crop == 0:
        return Placement.centred(width, height, config.fit)
    generator = torch.Generator().manual_seed(_number(f"{seed}/{triplet.name}/{crop}"))
    boxes = source_boxes(triplet)
    keep = torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))
    return Placement.drawn(width, height, config.fit, keep, generator)


def _number(text: str) -> int:
    """A seed from words."""
    return int.from_bytes(sha256(text.encode()).digest()[:7], "big")


def source_boxes(triplet: Triplet) -> Tensor:
    """(S, 4) fractions of the uncropped target: as given, or the masks' tight ones."""
    if triplet.boxes is not None:
        return triplet.boxes
    return torch.stack([box_of(_mask(path)) for path in triplet.masks])


def prepare(triplet: Triplet, config: DataConfig, crop: int = 0, seed: int = 0) -> Example:
    """Cut one square and carry every annotation into it.

    Raises:
        Faults: a subject lies outside the square.
    """
    place = placement_of(triplet, config, crop, seed)
    masks = [place.mask(_mask(path)) for path in triplet.masks]
    boxes = place.boxes(source_boxes(triplet))
    if triplet.boxes is None:
        boxes = torch.stack([torch.zeros(4) if box_of(mask) is None else box_of(mask) for mask in masks])
    outside = [name for name, box in zip(triplet.names, boxes) if box[2] <= box[0] or box[3] <= box[1]]
    if outside:
        raise Faults(f"triplet {triplet.name}: {', '.join(outside)} lies outside the square that data.fit = "
                     f"\"{config.fit}\" cuts from {triplet.target.name}. Use data.fit = \"pad\".")
    photographs = [open_picture(path) for path in triplet.concepts]
    concept_places = [Placement.centred(*photograph.size, config.fit) for photograph in photographs]
    target_points = place.points(triplet.keypoints_target[..., :2])
    concept_points = torch.stack([where.points(points[..., :2])
                                  for where, points in zip(concept_places, triplet.keypoints_concepts)])
    seen = (triplet.keypoints_target[..., 2] > 0) & (triplet.keypoints_concepts[..., 2] > 0)
    px = config.image_px
    return Example(
        triplet=triplet,
        target=to_tensor(place.picture(open_picture(triplet.target), px)),
        concepts=torch.stack([to_tensor(where.picture(photograph, px))
                              for where, photograph in zip(concept_places, photographs)]),
        photographs=tuple(to_tensor(photograph) for photograph in photographs),
        boxes=boxes,
        region=_region(masks, boxes, px // 8),
        keypoints_target=target_points, keypoints_concepts=concept_points,
        visible=seen & _inside(target_points) & _inside(concept_points),
        time_ids=place.time_ids(px),
    )


def _inside(points: Tensor) -> Tensor:
    """x = 1 and y = 1, the last edges, still count."""
    return ((points >= 0) & (points <= 1)).all(dim=-1)


def _region(masks: list[np.ndarray], boxes: Tensor, cells: int) -> Tensor:
    """Where any subject is, from its mask, or from its box where there is none."""
    if masks:
        union = Image.fromarray(np.logical_or.reduce(masks).astype(np.uint8) * 255)
        return (torch.from_numpy(np.asarray(union.resize((cells, cells), Image.Resampling.BOX)).copy()) >= 128).float()
    centres = (torch.arange(cells) + 0.5) / cells
    across = (centres >= boxes[:, 0, None]) & (centres < boxes[:, 2, None])
    down = (centres >= boxes[:, 1, None]) & (centres < boxes[:, 3, None])
    return (down[:, :, None] & across[:, None, :]).any(dim=0).float()
