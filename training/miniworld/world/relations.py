"""Relations of two creatures: each draws the poses that make it true.

A relation is a function of a Generator that returns a Staging. Creature 0 is the agent, on the left; the scene may be
mirrored afterwards. Paws that should touch are given the same point, so contact is exact. Two bodies stay two: heads
never cover each other's faces, and every outline is drawn whole where bodies meet.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .close_relations import (
    carrying,
    giving_a_piggyback,
    hiding_behind,
    hugging,
    kissing,
    leaning_on,
    leapfrogging,
    lifting,
    riding,
    whispering_to,
)
from .pose_presets import GROUND, hanging, jumping, lying, raised, relative, running, sitting, standing
from .staging import Staging, interleaved, middle, one_after_another, sizes


def standing_next_to(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.60), middle(rng), rng.uniform(0.205, 0.24)
    turns = rng.uniform(-0.2, 0.2, 2)
    return Staging((standing(x - gap, a, turns[0]), standing(x + gap, b, turns[1])))


def facing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.60), middle(rng), rng.uniform(0.22, 0.25)
    return Staging((standing(x - gap, a, 0.85, look=(1.0, 0.0)), standing(x + gap, b, -0.85, look=(-1.0, 0.0))))


def back_to_back(rng: np.random.Generator) -> Staging:
    (a, b), x = sizes(rng, 0.61), middle(rng)
    left = standing(x - 0.29 * a, a, -0.7, lean=0.05, tilt=-0.05)
    right = standing(x + 0.29 * b, b, 0.7, lean=-0.05, tilt=0.05)
    left = raised(left, relative(left, -0.14, -0.16), relative(left, -0.05, -0.13))
    right = raised(right, relative(right, 0.05, -0.13), relative(right, 0.14, -0.16))
    return Staging((left, right))


def sitting_beside(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.66), middle(rng), rng.uniform(0.215, 0.24)
    return Staging((sitting(x - gap, a, rng.uniform(-0.1, 0.2)), sitting(x + gap, b, rng.uniform(-0.2, 0.1))))


def shaking_hands(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.60), middle(rng), rng.uniform(0.215, 0.235)
    left, right = standing(x - gap, a, 0.5), standing(x + gap, b, -0.5)
    grip = (x, GROUND - rng.uniform(0.27, 0.31) * (a + b) / 2)
    return Staging((raised(left, left=grip), raised(right, right=grip)), interleaved())


def chasing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.56), middle(rng), rng.uniform(0.225, 0.245)
    behind, ahead = running(x - gap, a, 1.0), running(x + gap, b, 1.0, float(rng.uniform(0.9, 1.0)))
    behind = raised(behind, relative(behind, 0.46, -0.24), relative(behind, 0.42, -0.12))
    ahead = replace(ahead, look=(-1.0, 0.0))
    dust = GROUND - 0.015
    return Staging((behind, ahead), props=(("dust", behind.hip[0] - 0.2 * a, dust, 0.05),))


def dancing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.57), middle(rng), rng.uniform(0.20, 0.215)
    lean = float(rng.uniform(0.12, 0.2))
    left, right = standing(x - gap, a, 0.2, lean=-lean), standing(x + gap, b, -0.2, lean=lean)
    low = (x, GROUND - 0.30 * (a + b) / 2)
    left = replace(left, hands=(low, relative(left, -0.42, -0.36)), feet=(left.feet[0], relative(left, -0.22, 0.08)))
    right = replace(right, hands=(relative(right, 0.42, -0.36), low), feet=(relative(right, 0.22, 0.08), right.feet[1]))
    return Staging((left, right), interleaved(), (("note", x, GROUND - 0.93 * (a + b) / 2, 0.06),))


def feeding(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.60), middle(rng), rng.uniform(0.225, 0.24)
    giver = standing(x - gap, a, 0.55, lean=0.04, ground=GROUND - 0.01)
    eater = sitting(x + gap, b * 1.05, -0.45, ground=GROUND)
    bite = eater.on_head(-0.24, 0.16)
    spot = (bite[0] - 0.03, bite[1] + 0.02)
    return Staging(
        (raised(giver, right=spot), eater), interleaved(), (("apple", spot[0] + 0.02, spot[1] - 0.02, 0.048),)
    )


def high_fiving(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.57), middle(rng), rng.uniform(0.225, 0.24)
    left, right = standing(x - gap, a, 0.2, lean=-0.05), standing(x + gap, b, -0.2, lean=0.05)
    clap = (x, GROUND - 0.70 * (a + b) / 2)
    left, right = raised(left, left=clap), raised(right, right=clap)
    order = ((0, "back"), (1, "back"), (0, "trunk"), (1, "trunk"), (0, "head"), (1, "head"), (1, "arms"), (0, "arms"))
    return Staging((left, right), order, (("spark", x, clap[1] - 0.09, 0.055),))


def pushing(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.58), middle(rng), rng.uniform(0.215, 0.23)
    left, right = standing(x - gap - 0.02, a, 0.6, lean=0.24), standing(x + gap, b, 0.6, lean=0.14)
    left = replace(left, feet=(relative(left, 0.02, 0.145), relative(left, -0.20, 0.145)))
    back = right.torso(-0.13, -0.16)
    left = raised(left, (back[0], back[1] - 0.02), (back[0] + 0.01, back[1] + 0.05))
    return Staging((left, hanging(right, 0.10)), one_after_another(1, 0))


def waving_at(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.58), middle(rng), rng.uniform(0.225, 0.25)
    left, right = standing(x - gap, a, 0.35, look=(1.0, 0.0)), standing(x + gap, b, -0.5, look=(-1.0, 0.0))
    left = raised(left, right=relative(left, -0.42, -0.40))
    return Staging((left, right))


def lying_beside(rng: np.random.Generator) -> Staging:
    (a, b), x = sizes(rng, 0.54), middle(rng, 0.02)
    asleep = bool(rng.random() < 0.7)
    far = lying(x - 0.01, a, -1.0, ground=GROUND - 0.31, eyes_closed=asleep)
    near = lying(x - 0.06, b, -1.0, ground=GROUND + 0.02, eyes_closed=asleep)
    props = (("sleep", x + 0.22, GROUND - 0.66, 0.075),) if asleep else ()
    return Staging((far, near), props=props)


def jumping_with(rng: np.random.Generator) -> Staging:
    (a, b), x, gap = sizes(rng, 0.55), middle(rng), rng.uniform(0.205, 0.22)
    up = rng.uniform(0.11, 0.16, 2)
    left, right = jumping(x - gap, a, up[0]), jumping(x + gap, b, up[1])
    grip = (x, (left.hip[1] + right.hip[1]) / 2 - 0.30 * (a + b) / 2)
    return Staging((raised(left, left=grip), raised(right, right=grip)), interleaved())


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
    "hiding behind": hiding_behind,
    "leaning on": leaning_on,
    "whispering to": whispering_to,
    "giving a piggyback to": giving_a_piggyback,
    "lifting": lifting,
    "hugging": hugging,
    "shaking hands with": shaking_hands,
    "riding": riding,
    "leapfrogging": leapfrogging,
}
HELD_OUT = ("hugging", "shaking hands with", "riding", "leapfrogging")
SEEN = tuple(name for name in PAIRS if name not in HELD_OUT)
# bodies or limbs of the two cover each other: where identities are confused
OVERLAPPING = (
    "carrying",
    "kissing",
    "pushing",
    "hiding behind",
    "leaning on",
    "whispering to",
    "giving a piggyback to",
    "lifting",
    "hugging",
    "riding",
    "leapfrogging",
)
