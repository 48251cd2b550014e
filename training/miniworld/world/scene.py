"""Plan of a picture before it is drawn: cast, relation, poses, backdrop, caption."""

from dataclasses import dataclass, replace

import numpy as np

from .backdrop import Backdrop, draw_backdrop
from .captions import Caption, draw_caption
from .pose import mirrored
from .relations import OVERLAPPING, PAIRS, SEEN
from .single_and_group_poses import SINGLES, TRIOS
from .staging import Staging
from .traits import CreatureTraits, draw_cast

KINDS = (0.80, 0.12, 0.08)  # shares of pairs, single creatures and groups of three in a corpus
_WEIGHTS = np.array([1.5 if relation in OVERLAPPING else 1.0 for relation in SEEN])


@dataclass(frozen=True)
class ScenePlan:
    """Everything a picture is made of.

    Attributes:
        cast: who, in caption order.
        relation: what they do.
        staging: poses and painting order.
        backdrop: place and light.
        caption: the sentence.
    """

    cast: tuple[CreatureTraits, ...]
    relation: str
    staging: Staging
    backdrop: Backdrop
    caption: Caption


def stage(rng: np.random.Generator, relation: str) -> Staging:
    """Draw poses for a relation, mirrored half of the time."""
    if relation in PAIRS:
        staging = PAIRS[relation](rng)
    elif relation in TRIOS:
        staging = TRIOS[relation](rng)
    else:
        staging = Staging((SINGLES[relation](rng),))
    if rng.random() < 0.5:
        staging = replace(
            staging,
            poses=tuple(mirrored(pose) for pose in staging.poses),
            props=tuple((kind, 1 - x, y, size) for kind, x, y, size in staging.props),
        )
    return staging


def draw_relation(rng: np.random.Generator) -> str:
    """Draw a seen relation: mostly pairs, those in which bodies overlap half as often again."""
    kind = rng.choice(3, p=KINDS)
    if kind == 0:
        return str(rng.choice(SEEN, p=_WEIGHTS / _WEIGHTS.sum()))
    return str(rng.choice(tuple(SINGLES if kind == 1 else TRIOS)))


def draw_plan(
    rng: np.random.Generator,
    relation: str | None = None,
    cast: tuple[CreatureTraits, ...] | None = None,
    held_out: bool | None = False,
    backdrop: Backdrop | None = None,
) -> ScenePlan:
    """Draw a random scene.

    Args:
        rng: owner of the randomness.
        relation: fixed, or drawn by `draw_relation`; held-out relations never are.
        cast: fixed, or drawn from the side of the hold-out that `held_out` names.
        held_out: see `draw_traits`.
        backdrop: fixed, or drawn.

    Returns:
        A ScenePlan.
    """
    relation = relation or draw_relation(rng)
    staging = stage(rng, relation)
    cast = cast or draw_cast(rng, len(staging.poses), held_out)
    backdrop = backdrop or draw_backdrop(rng)
    return ScenePlan(cast, relation, staging, backdrop, draw_caption(rng, relation, cast, backdrop))


def portrait(rng: np.random.Generator, traits: CreatureTraits, avoid: str = "") -> ScenePlan:
    """Draw a reference picture: the identity alone, in another pose and on another backdrop than `avoid`."""
    backdrop = draw_backdrop(rng)
    while backdrop.place == avoid:
        backdrop = draw_backdrop(rng)
    return draw_plan(rng, relation=str(rng.choice(tuple(SINGLES))), cast=(traits,), backdrop=backdrop)
