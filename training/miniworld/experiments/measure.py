"""Count in the miniworld whether the relation happens, who is drawn, and who is drawn with the other's looks.

Exact in the sense that the classifiers have only ever seen rendered truth; their own accuracy on renders bounds what
can be measured and is reported beside every number. Fused bodies have a class of their own, so a fused hug is no hug.
The relation is right or wrong once per picture: Wilson's 95 % interval. Traits of one picture hang together, so their
means are given with a bootstrap over pictures. Emblems count where the renderer shows them.
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ...common.stats import Estimate, bootstrap_ratio, wilson
from ..recipes.classifiers import VISIBLE, Classifiers, crop_boxes, in_areas
from ..recipes.labelled_scenes import FUSED, LOOKS, RELATIONS, TRAITS, trait_row
from ..recipes.pictures import to_tensor
from ..world.renderer import render
from ..world.scene import ScenePlan

EMBLEM = ("emblem", "emblem_colour")


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
        """Convert an estimate to the fields of the model card's files; a single picture has no interval."""
        value = estimate.value
        low, high = (value if end is None else end for end in (estimate.low, estimate.high))
        return cls(value, low, high, estimate.samples)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of the classifiers on B pictures of two creatures.

    Attributes:
        relation: (B,) the requested relation is seen.
        right: (B, 2, 5) traits in the order of LOOKS are as the reference has them.
        differ: (B, 2, 5) the two creatures differ in this trait.
        swapped: (B, 2, 5) they differ, and the other one's is drawn.
        distance: (B,) mean distance of the visible keypoints from where the renderer puts them, in box sides.
        fused: (B,) the bodies are called fused.
        emblem: (B, 2) shape and colour of the emblem are right; shown: (B, 2) the renderer shows it.
    """

    relation: np.ndarray
    right: np.ndarray
    differ: np.ndarray
    swapped: np.ndarray
    distance: np.ndarray
    fused: np.ndarray
    emblem: np.ndarray
    shown: np.ndarray

    @classmethod
    def joined(cls, parts: "list[Predictions]") -> "Predictions":
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Measurement:
    """Scores of a set of pictures.

    Attributes:
        relation: pictures in which the classifier sees the requested relation.
        identity: share of traits (species, fur, belly, pattern, accessory) drawn as the reference has them.
        whole: subjects with every one of these traits right.
        confusion: of the traits in which two subjects differ, drawn with the other one's looks.
        keypoints: mean distance of keypoints from the renderer's, in box sides.
        fused: pictures whose bodies are called fused.
        emblem: of the emblems that should be visible, those right in shape and colour.
    """

    relation: Share
    identity: Share
    whole: Share
    confusion: Share | None
    keypoints: Share
    fused: Share
    emblem: Share | None

    @classmethod
    def of(cls, predictions: Predictions) -> "Measurement":
        ones = np.ones(len(predictions.relation))
        return cls(
            relation=Share.of(int(predictions.relation.sum()), len(ones)),
            identity=Share.of_parts(predictions.right.sum((1, 2)), predictions.right[0].size * ones),
            whole=Share.of_parts(predictions.right.all(-1).sum(1), predictions.right.shape[1] * ones),
            confusion=_where_possible(predictions.swapped.sum((1, 2)), predictions.differ.sum((1, 2))),
            keypoints=Share.of_parts(predictions.distance, ones),
            fused=Share.of(int(predictions.fused.sum()), len(ones)),
            emblem=_where_possible((predictions.emblem & predictions.shown).sum(1), predictions.shown.sum(1)),
        )

    def table(self) -> dict[str, dict[str, float]]:
        """Return the scores for JSON, without those that no picture could give."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _where_possible(counted: np.ndarray, possible: np.ndarray) -> Share | None:
    return Share.of_parts(counted, possible) if possible.any() else None


@torch.no_grad()
def classify(classifiers: Classifiers, images: Tensor, plans: list[ScenePlan]) -> Predictions:
    """Compare pictures of two creatures with their plans.

    Args:
        classifiers: trained.
        images: (B, 3, 128, 128) in [0, 1].
        plans: B scenes with two creatures each.

    Returns:
        Predictions.
    """
    targets = [render(plan) for plan in plans]
    boxes = torch.from_numpy(np.stack([each.boxes for each in targets]))
    keypoints = torch.from_numpy(np.stack([each.keypoints for each in targets])).flatten(0, 1)  # (2 B, 17, 3)
    relations = torch.tensor([RELATIONS.index(plan.relation) for plan in plans])
    traits = torch.tensor([[trait_row(who) for who in plan.cast] for plan in plans])  # (B, 2, 8)
    crops, areas = crop_boxes(images, boxes)
    logits, predicted_keypoints = classifiers.identity(crops)
    predicted_traits = torch.stack([logits[name].argmax(1) for name in TRAITS], dim=1).unflatten(0, (len(plans), 2))
    looks, emblem = ([list(TRAITS).index(name) for name in names] for names in (LOOKS, EMBLEM))
    differ = (traits != traits.flip(1))[..., looks]
    answers = classifiers.relation(images).argmax(1)
    return Predictions(
        relation=(answers == relations).numpy(),
        right=(predicted_traits == traits)[..., looks].numpy(),
        differ=differ.numpy(),
        swapped=((predicted_traits == traits.flip(1))[..., looks] & differ).numpy(),
        distance=_distance(predicted_keypoints, keypoints, areas).unflatten(0, (len(plans), 2)).mean(1).numpy(),
        fused=(answers == FUSED).numpy(),
        emblem=(predicted_traits == traits)[..., emblem].all(-1).numpy(),
        shown=np.stack([each.emblem_visible >= VISIBLE for each in targets]),
    )


def _distance(predicted: Tensor, keypoints: Tensor, areas: Tensor) -> Tensor:
    """Average the distance of visible joints in box sides: (N, 17, 2) in areas (N, 4), (N, 17, 3) to (N,)."""
    visible = (keypoints[..., 2] > 0).float()
    return ((predicted - in_areas(keypoints, areas)).norm(dim=-1) * visible).sum(1) / visible.sum(1).clamp(min=1)


def renders(plans: list[ScenePlan]) -> Tensor:
    """Render the plans, (B, 3, 128, 128) in [0, 1]; no model can be expected to score higher."""
    return to_tensor([render(plan).image for plan in plans])


def measure(classifiers: Classifiers, images: Tensor, plans: list[ScenePlan]) -> Measurement:
    """Score the predictions of `classify`; arguments as there."""
    return Measurement.of(classify(classifiers, images, plans))
