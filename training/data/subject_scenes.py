"""A picture of named subjects on disk, and the squares that are cut from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..common.errors import UserErrors
from ..common.image_files import open_image
from ..common.seeds import seeded_generator
from ..config.subject import SubjectDataConfig
from .coco import Thing, area_of
from .square_crop import SquareCrop

LEAST_SEEN = 0.5  # of a box, in a crop


@dataclass(frozen=True, eq=False)
class SubjectScene:
    """A picture, and what is known of its S subjects.

    Attributes:
        name: how its set calls it.
        target: the picture.
        size: its width and height, upright.
        prompt: what it shows.
        names: the subjects' words.
        boxes: (S, 4) fractions of the picture.
        masks: for each subject (width, height) to (H, W) bool; empty: the boxes stand for them.
        photographs: one per subject, or none: they are cut from the target.
        digest: SHA-256 of its annotations and files; of a COCO picture's name and length instead of its bytes.
    """

    name: str
    target: Path
    size: tuple[int, int]
    prompt: str
    names: tuple[str, ...]
    boxes: Tensor
    masks: tuple[Callable[[int, int], np.ndarray], ...]
    photographs: tuple[Path, ...]
    digest: str

    def picture(self) -> Image.Image:
        """Decode the target.

        Raises:
            UserErrors: it is gone or broken by now, or of another size than its set says.
        """
        try:
            image = open_image(self.target)
        except ValueError as error:
            raise UserErrors(str(error)) from error
        if image.size != self.size:
            raise UserErrors(f"{self.target}: it is {image.size} pixels, its annotations are of {self.size}.")
        return image

    def subject_masks(self) -> list[np.ndarray]:
        """Return (H, W) bool for each subject: its mask, or its box.

        Raises:
            UserErrors: run lengths that are not of this picture.
        """
        width, height = self.size
        try:
            if self.masks:
                return [mask(width, height) for mask in self.masks]
            return [Thing("", tuple(box), None).mask(width, height) for box in self.boxes.tolist()]
        except ValueError as error:
            raise UserErrors(f"{self.name}: {error}") from error

    def keep(self, subjects: Sequence[int]) -> SubjectScene:
        """Keep some of the subjects."""
        pick = list(subjects)

        def of(parts: tuple) -> tuple:
            return tuple(parts[i] for i in pick) if parts else ()

        return replace(
            self,
            names=of(self.names),
            boxes=self.boxes[pick],
            masks=of(self.masks),
            photographs=of(self.photographs),
        )


def scenes_sha256(scenes: Sequence[SubjectScene]) -> str:
    """Hash of every scene's digest, in order."""
    return sha256("".join(scene.digest for scene in scenes).encode()).hexdigest()


def crop_scene(
    scene: SubjectScene, config: SubjectDataConfig, crop: int, seed: int
) -> tuple[SubjectScene, SquareCrop] | None:
    """Place crop number `crop` of a picture, and keep those subjects of the scene that can be seen in it.

    Triplets' first crop is the middle one, as in finetune; all others keep the subjects inside where they can.

    Returns:
        None where no subject is in it.
    """
    width, height = scene.size
    if crop == 0 and scene.photographs:
        place = SquareCrop.centred(width, height, config.fit)
    else:
        keep = torch.cat((scene.boxes[:, :2].amin(0), scene.boxes[:, 2:].amax(0)))
        generator = seeded_generator(f"{seed}/{scene.name}/{crop}")
        place = SquareCrop.random(width, height, config.fit, keep, generator)
    inside = place.boxes(scene.boxes)
    scale = torch.tensor([width, height, width, height]) / place.side
    visible = [
        index
        for index, (part, whole) in enumerate(zip(inside.tolist(), (scene.boxes * scale).tolist()))
        if area_of(part) >= LEAST_SEEN * area_of(whole)
    ]
    return (scene.keep(visible), place) if visible else None
