"""One picture, decided but not yet drawn: who, where, doing what, said how."""

from dataclasses import dataclass, replace

import numpy as np

from .backdrop import Backdrop, draw_backdrop
from .captions import Caption, draw_caption
from .pose import mirrored
from .relations import PAIRS, SEEN, Staging
from .single_and_group_poses import GROUP_POSES, SINGLE_POSES
from .traits import CreatureTraits, draw_several_traits


@dataclass(frozen=True)
class ScenePlan:
    """Everything a picture is made of.

    Attributes:
        identities: who, in caption order.
        relation: what they do.
        staging: poses and painting order.
        backdrop: place and light.
        caption: the sentence.
    """

    identities: tuple[CreatureTraits, ...]
    relation: str
    staging: Staging
    backdrop: Backdrop
    caption: Caption


def stage(rng: np.random.Generator, relation: str) -> Staging:
    """Poses for a relation, mirrored half of the time."""
    if relation in PAIRS:
        staging = PAIRS[relation](rng)
    elif relation in GROUP_POSES:
        staging = GROUP_POSES[relation](rng)
    else:
        staging = Staging((SINGLE_POSES[relation](rng),))
    if rng.random() < 0.5:
        staging = replace(
            staging,
            poses=tuple(mirrored(pose) for pose in staging.poses),
            props=tuple((kind, 1 - x, y, size) for kind, x, y, size in staging.props),
        )
    return staging


def draw_plan(
    rng: np.random.Generator,
    relation: str | None = None,
    identities: tuple[CreatureTraits, ...] | None = None,
    held_out: bool | None = False,
    backdrop: Backdrop | None = None,
) -> ScenePlan:
    """A random scene.

    Args:
        rng: owner of the randomness.
        relation: fixed, or drawn: three in four are pairs, the rest solos and trios; held-out relations never.
        identities: fixed, or drawn from the side of the hold-out that `held_out` names.
        held_out: see `draw_identity`.
        backdrop: fixed, or drawn.
    Returns:
        A Plan.
    """
    if relation is None:
        kind = rng.choice(3, p=(0.76, 0.12, 0.12))
        relation = str(rng.choice((SEEN, tuple(SINGLE_POSES), tuple(GROUP_POSES))[kind]))
    staging = stage(rng, relation)
    identities = identities or draw_several_traits(rng, len(staging.poses), held_out)
    backdrop = backdrop or draw_backdrop(rng)
    caption = draw_caption(rng, relation, identities, backdrop)
    return ScenePlan(identities, relation, staging, backdrop, caption)


def portrait(rng: np.random.Generator, identity: CreatureTraits, avoid: str = "") -> ScenePlan:
    """A reference picture: the identity alone, in another pose and on another backdrop than `avoid`."""
    backdrop = draw_backdrop(rng)
    while backdrop.place == avoid:
        backdrop = draw_backdrop(rng)
    return draw_plan(rng, relation=str(rng.choice(tuple(SINGLE_POSES))), identities=(identity,), backdrop=backdrop)
