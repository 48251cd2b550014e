"""Records of a triplet's pictures and subjects that the stages fill in, before the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .backends import Box
from .choose import Candidate
from .joints import no_joints
from .raw import RawTriplet


@dataclass(eq=False)
class SeenSubject:
    """One subject in one picture.

    Attributes:
        box: tight box of the mask, or a person's; None if the subject was not found.
        detection: the detector's box and score, or a person's box with a score of 1.
        mask: (H, W) bool of its visible pixels, or None.
        quality: the segmenter's own estimate of its IoU, or None.
        scored: (17, 3) x, y, score by skeleton, as the pose models gave it.
        joints: (17, 3) x, y, visibility.
        vector: embedding of its looks, normalised, or None.
        best: score of the best candidate, whether it was good enough or not.
    """

    box: Box | None = None
    detection: Candidate | None = None
    mask: np.ndarray | None = None
    quality: float | None = None
    scored: dict[str, np.ndarray] = field(default_factory=dict)
    joints: np.ndarray = field(default_factory=no_joints)
    vector: np.ndarray | None = None
    best: float = 0.0


@dataclass
class SeenPicture:
    """One picture.

    Attributes:
        path: file that was looked at.
        digest: of its pixels.
        size: width and height, pixels.
        subjects: in the triplet's order; a concept has its own alone.
        candidates: boxes by name, best first.
    """

    path: Path
    digest: str
    size: tuple[int, int]
    subjects: list[SeenSubject]
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)


@dataclass
class Annotated:
    """One triplet.

    Attributes:
        raw: the pictures and names it was made from.
        pictures: the target, then the concepts.
        kinds, skeletons: of the subjects.
        prompt, predicate: the sentence and the relation's words in it.
        reader_scores: what the reader made of the target: `relation` and `decoy`, probabilities.
        notes: remarks for the user; no reason to reject.
    """

    raw: RawTriplet
    pictures: list[SeenPicture]
    kinds: list[str] = field(default_factory=list)
    skeletons: list[str] = field(default_factory=list)
    prompt: str = ""
    predicate: str = ""
    reader_scores: Mapping[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> SeenPicture:
        return self.pictures[0]

    def pairs(self) -> list[tuple[str, SeenSubject, SeenPicture, SeenSubject]]:
        """List per subject: name, as seen in the target, its concept, as seen there."""
        return [
            (name, self.target.subjects[index], concept, concept.subjects[0])
            for index, (name, concept) in enumerate(zip(self.raw.names, self.pictures[1:]))
        ]

    def complete(self) -> bool:
        """Whether every subject has a box in the target and in its photograph."""
        return all(in_target.box and in_concept.box for _, in_target, _, in_concept in self.pairs())
