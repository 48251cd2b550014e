"""One triplet: a target, its concepts, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What is known of a triplet's files once they have been opened.

    Attributes:
        size: width and height of the upright target, pixels.
        boxes: (S, 4) fractions of the target: as given, or the masks' tight ones.
        digests: SHA-256 of every file, in the order of `Triplet.files`, hexadecimal.
        visible_joints: how many joints the keypoint loss can compare, over all squares.
    """

    size: tuple[int, int]
    boxes: Tensor
    digests: tuple[str, ...]
    visible_joints: int = 0


@dataclass(frozen=True, eq=False)
class Triplet:
    """One target and the photographs of its S subjects.

    Attributes:
        name: how the folder calls it.
        target: the picture with the relation.
        concepts: one photograph per subject.
        prompt: what the target shows.
        predicate: the relation as the prompt words it; empty if the prompt does not say it.
        names: the subjects' words.
        masks: one 8-bit mask of the target per subject, or none at all.
        boxes: (S, 4) fractions of the target, or None: from the masks.
        keypoints_target: (K, P, 3) x, y, visibility in fractions; K >= S skeletons as found, or S = K in order.
        keypoints_concepts: (S, P, 3), each in fractions of its photograph.
        facts: what its files hold; None until they have been opened.
        extra: further keys of its line, which training does not read (`skeletons` names the joints).
    """

    name: str
    target: Path
    concepts: tuple[Path, ...]
    prompt: str
    predicate: str
    names: tuple[str, ...]
    masks: tuple[Path, ...]
    boxes: Tensor | None
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    facts: ImageFacts | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> tuple[Path, ...]:
        """List every picture of it."""
        return (self.target, *self.concepts, *self.masks)

    @property
    def licence(self) -> str:
        """Return the licence of its pictures, as `origin` of its line says; empty where nobody says."""
        origin = self.extra.get("origin")
        return str(origin.get("licence") or "") if isinstance(origin, Mapping) else ""
