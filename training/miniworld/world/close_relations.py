"""Relations in which one body covers part of the other: arms around, on a back, on top, behind."""

from dataclasses import replace

import numpy as np

from .pose import Pose
from .pose_presets import GROUND, crawling, raised, relative, sitting, standing
from .staging import Staging, interleaved, middle, one_after_another, sizes


def hugging(rng: np.random.Generator) -> Staging:
    """Pose cheek to cheek, each one's near arm across the other's shoulder and its far arm around."""
    (a, b), x = sizes(rng, 0.62), middle(rng)
    closed = rng.random(2) < 0.5
    left = standing(x - 0.185 * a, a, 0.4, lean=-0.15, tilt=0.22, eyes_closed=bool(closed[0]))
    right = standing(x + 0.185 * b, b, -0.4, lean=0.15, tilt=-0.22, eyes_closed=bool(closed[1]))
    left, right = (
        raised(left, right.torso(0.19, -0.12), right.torso(-0.02, -0.205)),
        raised(right, left.torso(0.03, -0.09), left.torso(-0.19, -0.06)),
    )
    return Staging((left, right), interleaved())


def kissing(rng: np.random.Generator) -> Staging:
    """Pose nose to nose, a heart above."""
    a, x = float(rng.uniform(0.57, 0.63)), middle(rng)
    b = a * float(rng.uniform(0.97, 1.03))
    left = standing(x - 0.40 * a, a, 0.95, lean=0.17, eyes_closed=True)
    right = standing(x + 0.40 * b, b, -0.95, lean=-0.17, eyes_closed=True)
    left = raised(left, relative(left, -0.20, -0.08), relative(left, -0.17, -0.05))
    right = raised(right, relative(right, 0.17, -0.05), relative(right, 0.20, -0.08))
    return Staging((left, right), interleaved(), (("heart", x, GROUND - 1.06 * a, 0.062),))


def carrying(rng: np.random.Generator) -> Staging:
    """Pose the other in the agent's arms, across the chest."""
    (a, b), x = sizes(rng, 0.68), middle(rng, 0.02)
    b *= 0.80
    bearer = standing(x - 0.09, a, 0.1, lean=-0.05, look=(1.0, 0.5))
    hip = (bearer.hip[0] - 0.02, bearer.hip[1] - 0.03 * a)
    load = Pose(hip, b, -0.15, (hip, hip), (hip, hip), lean=1.15, follow=0.55, look=(-1.0, 0.0))
    load = replace(load, feet=(relative(load, -0.17, -0.07), relative(load, -0.20, 0.07)))
    load = raised(load, load.torso(0.02, -0.02), load.torso(-0.19, -0.10))
    bearer = raised(bearer, load.torso(0.15, -0.24), load.torso(0.14, -0.03))
    order = ((0, "back"), (0, "trunk"), (0, "head"), (1, "back"), (1, "trunk"), (1, "arms"), (1, "head"), (0, "arms"))
    return Staging((bearer, load), order)


def giving_a_piggyback(rng: np.random.Generator) -> Staging:
    """Pose the other on the agent's back: a head above the shoulder, paws around the chest."""
    (a, b), x = sizes(rng, 0.56), middle(rng)
    b *= 0.86
    bearer = standing(x + 0.11, a, 0.6, lean=0.20)
    hip = bearer.torso(-0.33, -0.23)
    foot = bearer.torso(0.05, -0.03)
    load = Pose(hip, b, 0.5, (hip, hip), ((foot[0] - 0.02, foot[1]), foot), lean=-0.16, tilt=0.10)
    load = raised(load, bearer.torso(0.08, -0.20), bearer.torso(0.05, -0.20))
    bearer = raised(bearer, bearer.torso(0.02, -0.02), bearer.torso(-0.05, -0.01))
    order = ((1, "back"), (1, "head"), (0, "back"), (1, "trunk"), (0, "trunk"), (1, "arms"), (0, "arms"), (0, "head"))
    return Staging((bearer, load), order)


def lifting(rng: np.random.Generator) -> Staging:
    """Pose the other held up high under the arms."""
    (a, b), x = sizes(rng, 0.53), middle(rng)
    b *= 0.88
    bearer = standing(x - 0.15, a, 0.55, lean=-0.05, tilt=-0.12, look=(0.5, -1.0))
    hip = (x + 0.13, GROUND - 0.55 * a)
    load = Pose(
        hip, b, -0.35, (hip, hip), ((hip[0] + 0.10 * b, hip[1] + 0.15 * b), (hip[0] - 0.10 * b, hip[1] + 0.15 * b))
    )
    load = raised(load, relative(load, 0.36, -0.36), relative(load, -0.33, -0.38))
    grips = load.torso(-0.12, -0.10), load.torso(-0.10, -0.05)
    return Staging((raised(bearer, *grips), load), interleaved())


def hiding_behind(rng: np.random.Generator) -> Staging:
    """Pose the agent half behind the other, a paw on its shoulder."""
    (a, b), x = sizes(rng, 0.62), middle(rng)
    front = standing(x + 0.10, b, 0.1)
    agent = standing(x - 0.115, a * 0.96, 0.2, ground=GROUND - 0.045, tilt=-0.12, look=(1.0, 0.0))
    agent = raised(agent, left=front.torso(-0.10, -0.20))
    order = ((0, "back"), (0, "trunk"), (0, "head"), (1, "back"), (1, "trunk"), (1, "arms"), (0, "arms"), (1, "head"))
    return Staging((agent, front), order)


def leaning_on(rng: np.random.Generator) -> Staging:
    """Pose both sitting, the agent's head on the other's shoulder, asleep."""
    (a, b), x = sizes(rng, 0.66), middle(rng)
    support = sitting(x + 0.19, b * 1.04, -0.1, lean=0.04, tilt=0.03)
    agent = sitting(x - 0.20, a * 0.94, 0.25, lean=0.16, tilt=0.38, eyes_closed=True)
    agent = raised(agent, left=relative(agent, 0.23, -0.02))
    return Staging((agent, support), interleaved())


def whispering_to(rng: np.random.Generator) -> Staging:
    """Pose the agent's muzzle and paw at the other's ear."""
    (a, b), x = sizes(rng, 0.60), middle(rng)
    listener = standing(x + 0.17, b, 0.0, lean=0.02, tilt=0.05, look=(-1.0, 0.0))
    agent = standing(x - 0.19, a, 0.85, lean=0.13, tilt=0.04, look=(1.0, 0.0))
    paw = listener.on_head(-0.22, 0.12)
    agent = raised(agent, right=(paw[0], paw[1]), left=relative(agent, 0.22, -0.06))
    order = ((0, "back"), (1, "back"), (0, "trunk"), (1, "trunk"), (1, "arms"), (1, "head"), (0, "head"), (0, "arms"))
    return Staging((agent, listener), order)


def riding(rng: np.random.Generator) -> Staging:
    """Pose the agent on the back of one that goes on all fours."""
    (a, b), x = sizes(rng, 0.54), middle(rng, 0.03)
    a *= 0.90
    mount = crawling(x + 0.01, b * 1.06, 1.0, GROUND + 0.02)
    hip = mount.torso(-0.17, -0.05)
    feet = (hip[0] + 0.10 * a, hip[1] + 0.17 * a), (hip[0] + 0.05 * a, hip[1] + 0.18 * a)
    rider = Pose(hip, a, 0.35, (hip, hip), feet, lean=-0.12, tilt=0.08)
    rider = raised(rider, relative(rider, 0.30, -0.12), relative(rider, 0.24, -0.08))
    order = ((0, "back"), (1, "back"), (1, "trunk"), (1, "arms"), (0, "trunk"), (0, "head"), (1, "head"), (0, "arms"))
    return Staging((rider, mount), order)


def leapfrogging(rng: np.random.Generator) -> Staging:
    """Pose the agent over the back of one that crouches, legs wide, paws pressed on its back."""
    (a, b), x = sizes(rng, 0.50), middle(rng, 0.03)
    below = crawling(x + 0.03, b * 1.04, 1.0, GROUND + 0.02)
    back = below.torso(-0.17, -0.10)
    hip = (back[0] - 0.03, back[1] - 0.20 * a)
    feet = (hip[0] + 0.25 * a, hip[1] - 0.02 * a), (hip[0] - 0.25 * a, hip[1] - 0.02 * a)
    above = Pose(hip, a, 0.1, (hip, hip), feet, lean=0.06)
    above = raised(above, (back[0] + 0.055, back[1]), (back[0] - 0.05, back[1]))
    return Staging((above, below), one_after_another(1, 0), (("spark", hip[0] - 0.42 * a, hip[1] - 0.32 * a, 0.045),))
