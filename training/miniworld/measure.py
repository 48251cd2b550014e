"""What a model does in the miniworld, counted: does the relation happen, who is drawn, who is drawn with whose looks.

Exact in the sense that the judges (`judges`) have only ever seen rendered truth; their own accuracy on renders bounds
what can be measured and is reported beside every number. Intervals are Wilson's, 95 %.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from .judges import Judges, crop_boxes
from .renderer import render
from .scene import Plan
from .truth import RELATIONS, TRAITS, trait_row


@dataclass(frozen=True)
class Share:
    """A proportion with its interval.

    Attributes:
        value: successes over trials.
        low, high: Wilson's 95 % interval.
        trials: how many.
    """

    value: float
    low: float
    high: float
    trials: int

    @classmethod
    def of(cls, successes: int, trials: int, z: float = 1.96) -> "Share":
        """The interval that holds the true proportion in 95 of 100 repetitions.

        Raises:
            ValueError: no trials.
        """
        if trials < 1:
            raise ValueError("share: expected at least one trial, got none")
        value = successes / trials
        centre = (value + z * z / (2 * trials)) / (1 + z * z / trials)
        half = z / (1 + z * z / trials) * math.sqrt(value * (1 - value) / trials + z * z / (4 * trials * trials))
        return cls(value, max(0.0, centre - half), min(1.0, centre + half), trials)


@dataclass(frozen=True)
class Measurement:
    """Scores of a set of pictures.

    Attributes:
        relation: the judge sees the relation asked for.
        identity: share of traits (species, fur, belly, pattern, accessory) drawn as the reference has them.
        whole: subjects with every one of these traits right.
        confusion: of the traits in which two subjects differ, drawn with the other one's looks.
    """

    relation: Share
    identity: Share
    whole: Share
    confusion: Share

    def table(self) -> dict[str, dict[str, float]]:
        return asdict(self)


JUDGED = ("species", "fur", "belly", "pattern", "accessory")


@torch.no_grad()
def measure(judges: Judges, images: Tensor, plans: list[Plan]) -> Measurement:
    """Judges pictures of two creatures against the plans they were asked for.

    Args:
        judges: trained.
        images: (B, 3, H, W) in [0, 1].
        plans: B scenes with two creatures each.
    Returns:
        A Measurement.
    """
    boxes = torch.from_numpy(np.stack([render(plan, 64).boxes for plan in plans]))
    asked = torch.tensor([RELATIONS.index(plan.relation) for plan in plans])
    wanted = torch.tensor([[trait_row(who) for who in plan.identities] for plan in plans])  # (B, 2, 6)
    seen = judges.relation(images).argmax(1)
    logits, _ = judges.identity(crop_boxes(images, boxes)[0])
    drawn = torch.stack([logits[name].argmax(1) for name in TRAITS], dim=1).view(len(plans), 2, -1)
    keep = [list(TRAITS).index(name) for name in JUDGED]
    right = (drawn == wanted)[..., keep]
    other = wanted.flip(1)
    differ = (wanted != other)[..., keep]
    swapped = ((drawn == other)[..., keep] & differ).sum()
    return Measurement(
        relation=Share.of(int((seen == asked).sum()), len(plans)),
        identity=Share.of(int(right.sum()), right.numel()),
        whole=Share.of(int(right.all(-1).sum()), right[..., 0].numel()),
        confusion=Share.of(int(swapped), max(1, int(differ.sum()))),
    )
