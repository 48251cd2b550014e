"""Poses, painting order and props of one scene, as a relation sets them."""

from dataclasses import dataclass

import numpy as np

from .creature import LAYERS
from .pose import Pose

Order = tuple[tuple[int, str], ...]
Prop = tuple[str, float, float, float]


@dataclass(frozen=True)
class Staging:
    """Poses and painting order of one scene.

    Attributes:
        poses: of each creature; creature 0 is the agent.
        order: (creature, layer) back to front; empty means creature after creature.
        props: small things held or floating: (kind, x, y, size).
    """

    poses: tuple[Pose, ...]
    order: Order = ()
    props: tuple[Prop, ...] = ()

    def painting_order(self) -> Order:
        return self.order or tuple((index, layer) for index in range(len(self.poses)) for layer in LAYERS)


def one_after_another(*creatures: int) -> Order:
    """Order whole creatures, the first in the list the farthest away."""
    return tuple((index, layer) for index in creatures for layer in LAYERS)


def interleaved() -> Order:
    """Order both bodies, then both pairs of arms, then both heads: an embrace. The agent is nearer to us."""
    return tuple((index, layer) for layer in LAYERS for index in (1, 0))


def sizes(rng: np.random.Generator, base: float) -> tuple[float, float]:
    """Draw the heights of two creatures, up to 8 % around `base`."""
    first, second = base * rng.uniform(0.92, 1.08, 2)
    return float(first), float(second)


def middle(rng: np.random.Generator, most: float = 0.045) -> float:
    """Draw a scene's middle, as a fraction of the width."""
    return float(0.5 + rng.uniform(-most, most))
