"""Corrections that people made in the files beside the pictures; they are never overwritten."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .backends import Box
from .choose import Candidate


@dataclass
class PictureEdits:
    """A person's corrections of one picture, by number of the subject in it.

    Attributes:
        boxes: fractions.
        masks: (H, W) bool; outlines: the polygons in pixels that they were drawn by, written back as they are.
        joints: by number of the joint: x, y in fractions, and 2 counts, 1 hidden, 0 not there.
        file_boxes: where the corrected files showed the subjects, so that each stays the one that was corrected.
    """

    boxes: dict[int, Box] = field(default_factory=dict)
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    outlines: dict[int, list[np.ndarray]] = field(default_factory=dict)
    joints: dict[int, dict[int, tuple[float, float, int]]] = field(default_factory=dict)
    file_boxes: dict[int, Candidate] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.boxes or self.masks or self.joints)
