"""What a model does in the miniworld, counted: does the relation happen, who is drawn, who is drawn with whose looks.

Exact in the sense that the judges (`judges`) have only ever seen rendered truth; their own accuracy on renders bounds
what can be measured and is reported beside every number. The relation is right or wrong once a picture: Wilson's 95 %
interval. Traits of one picture hang together, so their means are given with a bootstrap over pictures.
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ...common.stats import Estimate, bootstrap_ratio, wilson
from ..recipes.classifiers import Classifiers, crop_boxes
from ..recipes.labelled_scenes import RELATIONS, TRAITS, trait_row
from ..recipes.pictures import to_tensor
from ..world.renderer import render
from ..world.scene import ScenePlan

CLASSIFIED = ("species", "fur", "belly", "pattern", "accessory")


@dataclass(frozen=True)
class Share:
    """A mean over pictures with its 95 % interval.

    Attributes:
        value: the mean.
        low, high: the interval.
        trials: pictures.
    """

    value: float
    low: float
    high: float
    trials: int

    @classmethod
    def of(cls, successes: int, trials: int) -> "Share":
        """Estimate a proportion, with Wilson's interval.

        Raises:
            ValueError: no trials.
        """
        return cls._of(wilson(successes, trials))

    @classmethod
    def of_parts(cls, counted: np.ndarray, possible: np.ndarray, seed: int = 0) -> "Share":
        """Estimate the sum of `counted` over that of `possible`, both (pictures,), by a bootstrap over pictures.

        Raises:
            ValueError: nothing was possible.
        """
        return cls._of(bootstrap_ratio(counted, possible, seed))

    @classmethod
    def _of(cls, estimate: Estimate) -> "Share":
        """As the model card's files keep it; a single picture has no interval."""
        value = estimate.value
        low, high = (value if end is None else end for end in (estimate.low, estimate.high))
        return cls(value, low, high, estimate.samples)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the judges say of B pictures of two creatures.

    Attributes:
        relation: (B,) the relation asked for is seen.
        right: (B, 2, 5) traits in the order of JUDGED are as the reference has them.
        differ: (B, 2, 5) the two creatures differ in this trait.
        swapped: (B, 2, 5) they differ, and the other one's is drawn.
        distance: (B,) mean distance of the visible keypoints from where the renderer puts them, in box sides.
    """

    relation: np.ndarray
    right: np.ndarray
    differ: np.ndarray
    swapped: np.ndarray
    distance: np.ndarray

    @classmethod
    def joined(cls, parts: "list[Predictions]") -> "Predictions":
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Measurement:
    """Scores of a set of pictures.

    Attributes:
        relation: pictures in which the judge sees the relation asked for.
        identity: share of traits (species, fur, belly, pattern, accessory) drawn as the reference has them.
        whole: subjects with every one of these traits right.
        confusion: of the traits in which two subjects differ, drawn with the other one's looks.
        keypoints: mean distance of keypoints from the renderer's, in box sides.
    """

    relation: Share
    identity: Share
    whole: Share
    confusion: Share
    keypoints: Share

    @classmethod
    def of(cls, verdicts: Predictions) -> "Measurement":
        ones = np.ones(len(verdicts.relation))
        traits = verdicts.right[0].size
        return cls(
            relation=Share.of(int(verdicts.relation.sum()), len(ones)),
            identity=Share.of_parts(verdicts.right.sum((1, 2)), traits * ones),
            whole=Share.of_parts(verdicts.right.all(-1).sum(1), verdicts.right.shape[1] * ones),
            confusion=Share.of_parts(verdicts.swapped.sum((1, 2)), verdicts.differ.sum((1, 2))),
            keypoints=Share.of_parts(verdicts.distance, ones),
        )

    def table(self) -> dict[str, dict[str, float]]:
        return asdict(self)


@torch.no_grad()
def classify(judges: Classifiers, images: Tensor, plans: list[ScenePlan]) -> Predictions:
    """Judges pictures of two creatures against the plans they were asked for.

    Args:
        judges: trained.
        images: (B, 3, H, W) in [0, 1].
        plans: B scenes with two creatures each.
    Returns:
        Verdicts.
    """
    drawn = [render(plan, 64) for plan in plans]
    boxes = torch.from_numpy(np.stack([each.boxes for each in drawn]))
    keypoints = torch.from_numpy(np.stack([each.keypoints for each in drawn])).flatten(0, 1)  # (2 B, 17, 3)
    asked = torch.tensor([RELATIONS.index(plan.relation) for plan in plans])
    wanted = torch.tensor([[trait_row(who) for who in plan.identities] for plan in plans])  # (B, 2, 6)
    crops, areas = crop_boxes(images, boxes)
    logits, found = judges.identity(crops)
    seen = torch.stack([logits[name].argmax(1) for name in TRAITS], dim=1).view(len(plans), 2, -1)
    keep = [list(TRAITS).index(name) for name in CLASSIFIED]
    differ = (wanted != wanted.flip(1))[..., keep]
    place = (keypoints[..., :2] - areas[:, None, :2]) / (areas[:, None, 2:] - areas[:, None, :2])
    visible = (keypoints[..., 2] > 0).float()
    distance = ((found - place).norm(dim=-1) * visible).view(len(plans), -1).sum(1) / visible.view(len(plans), -1).sum(
        1
    )
    return Predictions(
        relation=(judges.relation(images).argmax(1) == asked).numpy(),
        right=(seen == wanted)[..., keep].numpy(),
        differ=differ.numpy(),
        swapped=((seen == wanted.flip(1))[..., keep] & differ).numpy(),
        distance=distance.numpy(),
    )


def renders(plans: list[ScenePlan]) -> Tensor:
    """The plans as the renderer draws them, (B, 3, 128, 128) in [0, 1]; no model can be expected to score higher."""
    return to_tensor([render(plan).image for plan in plans])


def measure(judges: Classifiers, images: Tensor, plans: list[ScenePlan]) -> Measurement:
    """The scores of `judge`'s verdicts; arguments as there."""
    return Measurement.of(classify(judges, images, plans))
