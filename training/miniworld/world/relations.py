"""What happens between creatures: each relation draws the poses that make it true.

A relation is a function of a Generator that returns a Staging. Creature 0 is the agent, on the left; the scene may be
mirrored afterwards. Paws that should touch are given the same point, so contact is exact.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .creature import LAYERS
from .pose import Point, Pose
from .pose_presets import GROUND, crawling, hanging, jumping, lying, raised, relative, running, sitting, standing

Order = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Staging:
    """Poses and painting order of one scene.

    Attributes:
        poses: one a creature.
        order: (creature, layer) back to front; empty means creature after creature.
        props: small things held or floating: (kind, x, y, size).
    """

    poses: tuple[Pose, ...]
    order: Order = ()
    props: tuple[tuple[str, float, float, float], ...] = ()

    def painting_order(self) -> Order:
        return self.order or tuple((index, layer) for index in range(len(self.poses)) for layer in LAYERS)


EMBRACE: Order = ((0, "back"), (1, "back"), (0, "middle"), (1, "middle"), (1, "front"), (0, "front"))


def _sizes(rng: np.random.Generator, base: float = 0.5) -> tuple[float, float]:
    first, second = base * rng.uniform(0.9, 1.1, 2)
    return float(first), float(second)


def _middle(rng: np.random.Generator) -> float:
    return float(0.5 + rng.uniform(-0.06, 0.06))


def standing_next_to(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.55), _middle(rng), rng.uniform(0.19, 0.24)
    turns = rng.uniform(-0.2, 0.2, 2)
    return Staging((standing(x - gap, a, turns[0]), standing(x + gap, b, turns[1])))


def facing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.56), _middle(rng), rng.uniform(0.2, 0.26)
    return Staging((standing(x - gap, a, 0.9), standing(x + gap, b, -0.9)))


def back_to_back(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.58), _middle(rng)
    left, right = standing(x - 0.2 * a, a, -0.8, lean=0.08), standing(x + 0.2 * b, b, 0.8, lean=-0.08)
    left = raised(left, relative(left, -0.12, -0.15), relative(left, -0.06, -0.12))
    right = raised(right, relative(right, 0.06, -0.12), relative(right, 0.12, -0.15))
    return Staging((left, right), EMBRACE)


def sitting_beside(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.58), _middle(rng), rng.uniform(0.2, 0.24)
    return Staging((sitting(x - gap, a, rng.uniform(-0.1, 0.3)), sitting(x + gap, b, rng.uniform(-0.3, 0.1))))


def shaking_hands(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.56), _middle(rng), rng.uniform(0.19, 0.21)
    left, right = standing(x - gap, a, 0.6), standing(x + gap, b, -0.6)
    grip = (x, GROUND - rng.uniform(0.36, 0.41) * (a + b) / 2)
    return Staging((raised(left, left=grip), raised(right, right=grip)), EMBRACE)


def hugging(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.57), _middle(rng)
    left = standing(x - 0.215 * a, a, 0.55, lean=0.13, tilt=-0.05, eyes_closed=bool(rng.random() < 0.5))
    right = standing(x + 0.215 * b, b, -0.55, lean=-0.13, tilt=0.05, eyes_closed=bool(rng.random() < 0.5))
    left = raised(left, right.torso(0.06, -0.19), right.torso(0.08, -0.10))
    right = raised(right, left.torso(-0.08, -0.21), left.torso(-0.06, -0.05))
    return Staging((left, right), EMBRACE)


def riding(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.47), _middle(rng)
    mount = crawling(x, b * 1.25, 1.0, GROUND + 0.02)
    seat = mount.torso(-0.15, -0.12)
    hip = (seat[0], seat[1] - 0.04 * a)
    rider = Pose(
        hip=hip,
        size=a,
        turn=0.5,
        hands=(hip, hip),
        feet=((hip[0] + 0.11 * a, hip[1] + 0.22 * a), (hip[0] - 0.03 * a, hip[1] + 0.24 * a)),
    )
    rider = raised(rider, relative(rider, 0.24, -0.16), relative(rider, 0.20, -0.08))
    return Staging((rider, mount), ((0, "back"), (1, "back"), (1, "middle"), (1, "front"), (0, "middle"), (0, "front")))


def carrying(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.5), _middle(rng)
    bearer = standing(x, a, rng.uniform(-0.1, 0.1), ground=GROUND + 0.04)
    load = lying(x + 0.02, b * 0.95, 1.0, ground=bearer.head[1] - 0.13 * a)
    lift = bearer.head[1] - 0.20 * a
    bearer = raised(bearer, (x + 0.27 * a, lift), (x - 0.27 * a, lift))
    return Staging((bearer, load), ((0, "back"), (0, "middle"), (1, "back"), (1, "middle"), (1, "front"), (0, "front")))


def kissing(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.54), _middle(rng)
    b = a * float(rng.uniform(0.95, 1.05))
    left = standing(x - 0.265 * a, a, 0.95, lean=0.17, eyes_closed=True)
    right = standing(x + 0.265 * b, b, -0.95, lean=-0.17, eyes_closed=True)
    left = raised(left, relative(left, -0.14, -0.1), relative(left, -0.18, -0.08))
    right = raised(right, relative(right, 0.18, -0.08), relative(right, 0.14, -0.1))
    return Staging((left, right), EMBRACE, (("heart", x, left.head[1] - 0.24 * a, 0.055),))


def chasing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.5), _middle(rng), rng.uniform(0.22, 0.26)
    behind, ahead = running(x - gap, a, 1.0), running(x + gap, b, 1.0, rng.uniform(0.85, 1.0))
    behind = raised(behind, relative(behind, 0.36, -0.24), relative(behind, 0.34, -0.33))
    return Staging((behind, ahead))


def dancing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.54), _middle(rng), rng.uniform(0.175, 0.2)
    lean = float(rng.uniform(0.1, 0.2))
    left, right = standing(x - gap, a, 0.35, lean=-lean), standing(x + gap, b, -0.35, lean=lean)
    low = (x, GROUND - 0.40 * (a + b) / 2)
    left = replace(left, hands=(low, relative(left, -0.33, -0.42)), feet=(left.feet[0], relative(left, -0.24, 0.13)))
    right = replace(right, hands=(relative(right, 0.33, -0.42), low), feet=(relative(right, 0.24, 0.13), right.feet[1]))
    return Staging((left, right), EMBRACE)


def feeding(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.56), _middle(rng), rng.uniform(0.185, 0.205)
    giver, eater = standing(x - gap, a, 0.75, lean=0.1), sitting(x + gap, b, -0.55, ground=GROUND)
    bite = eater.on_head(-0.20, 0.10)
    spot = (bite[0] - 0.05, bite[1] + 0.012)
    return Staging(
        (raised(giver, right=spot), eater),
        ((1, "back"), (1, "middle"), (1, "front"), (0, "back"), (0, "middle"), (0, "front")),
        (("apple", spot[0] + 0.035, spot[1] - 0.012, 0.036),),
    )


def high_fiving(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.55), _middle(rng), rng.uniform(0.185, 0.21)
    left, right = standing(x - gap, a, 0.55), standing(x + gap, b, -0.55)
    clap = (x, GROUND - 0.78 * (a + b) / 2)
    return Staging((raised(left, left=clap), raised(right, right=clap)), EMBRACE)


def pushing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.54), _middle(rng), rng.uniform(0.19, 0.21)
    left, right = standing(x - gap - 0.05, a, 0.8, lean=0.36), standing(x + gap, b, 0.7, lean=0.15)
    left = replace(left, feet=(relative(left, -0.2, 0.20), relative(left, 0.05, 0.21)))
    back = right.torso(-0.13, -0.2)
    return Staging((raised(left, (back[0], back[1] - 0.02), (back[0], back[1] + 0.04)), hanging(right, 0.06)))


def waving_at(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.53), _middle(rng), rng.uniform(0.23, 0.27)
    left, right = standing(x - gap, a, 0.45), standing(x + gap, b, -0.45)
    return Staging((raised(left, right=relative(left, -0.33, -0.50)), right))


def leapfrogging(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.45), _middle(rng)
    below = crawling(x + 0.02, b * 1.2, 1.0, GROUND + 0.02)
    back = below.torso(-0.13, -0.26)
    hip = (back[0] - 0.02, back[1] - 0.29 * a)
    above = Pose(
        hip=hip,
        size=a,
        turn=0.35,
        lean=0.3,
        hands=(hip, hip),
        feet=((hip[0] + 0.30 * a, hip[1] + 0.10 * a), (hip[0] - 0.30 * a, hip[1] + 0.08 * a)),
    )
    above = raised(above, (back[0] + 0.05, back[1] - 0.005), (back[0] - 0.03, back[1] - 0.01))
    return Staging((above, below), ((1, "back"), (1, "middle"), (1, "front"), (0, "back"), (0, "middle"), (0, "front")))


def lying_beside(rng: np.random.Generator) -> Staging:
    (a, b), x = _sizes(rng, 0.52), _middle(rng)
    asleep = bool(rng.random() < 0.7)
    return Staging(
        (
            lying(x - 0.02, a, -1.0, ground=GROUND - 0.2, eyes_closed=asleep),
            lying(x + 0.02, b, -1.0, ground=GROUND + 0.04, eyes_closed=asleep),
        )
    )


def jumping_with(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = _sizes(rng, 0.5), _middle(rng), rng.uniform(0.2, 0.23)
    up = rng.uniform(0.1, 0.16, 2)
    left, right = jumping(x - gap, a, up[0]), jumping(x + gap, b, up[1])
    grip: Point = (x, (left.hands[0][1] + right.hands[1][1]) / 2)
    return Staging((raised(left, left=grip), raised(right, right=grip)), EMBRACE)


PAIRS: dict[str, Callable[[np.random.Generator], Staging]] = {
    "standing next to": standing_next_to,
    "facing": facing,
    "back to back": back_to_back,
    "sitting beside": sitting_beside,
    "carrying": carrying,
    "kissing": kissing,
    "chasing": chasing,
    "dancing with": dancing,
    "feeding": feeding,
    "high-fiving": high_fiving,
    "pushing": pushing,
    "waving at": waving_at,
    "lying beside": lying_beside,
    "jumping with": jumping_with,
    "hugging": hugging,
    "shaking hands with": shaking_hands,
    "riding": riding,
    "leapfrogging": leapfrogging,
}
HELD_OUT = ("hugging", "shaking hands with", "riding", "leapfrogging")
SEEN = tuple(name for name in PAIRS if name not in HELD_OUT)
