"""Building blocks of relations: a creature that stands, sits, runs, lies, crawls."""

import math
from dataclasses import replace

from .pose import HIP_HEIGHT, Point, Pose

GROUND = 0.88


def relative(pose: Pose, x: float, y: float) -> Point:
    """A point `x`, `y` heights away from the hip, not tipped by the torso's lean."""
    return (pose.hip[0] + x * pose.size, pose.hip[1] + y * pose.size)


def standing(
    x: float, size: float, turn: float = 0.0, lean: float = 0.0, ground: float = GROUND, **more: object
) -> Pose:
    """Upright on the ground, arms hanging; `x` is where the feet are."""
    hip = (x, ground - HIP_HEIGHT * size)
    gap = 0.10 * (0.45 + 0.55 * math.cos(turn * 1.25))
    pose = Pose(
        hip=hip,
        size=size,
        turn=turn,
        lean=lean,
        hands=(hip, hip),
        feet=((x + gap * size, ground - 0.045 * size), (x - gap * size, ground - 0.045 * size)),
        **more,
    )
    return hanging(pose)


def hanging(pose: Pose, out: float = 0.0) -> Pose:
    """Arms down at the sides, `out` heights away from the body."""
    wide = 0.20 * pose.spread + 0.03 + out
    return replace(
        pose, hands=(pose.torso(wide + 0.05 * pose.turn, 0.015), pose.torso(-wide + 0.05 * pose.turn, 0.015))
    )


def sitting(
    x: float, size: float, turn: float = 0.0, lean: float = 0.0, ground: float = GROUND, **more: object
) -> Pose:
    """On the ground, legs forward."""
    hip = (x, ground - 0.095 * size)
    ahead = 0.24 * turn
    gap = 0.17 * (0.3 + 0.7 * math.cos(turn * 1.25))
    pose = Pose(
        hip=hip,
        size=size,
        turn=turn,
        lean=lean,
        hands=(hip, hip),
        feet=((x + (gap + ahead) * size, ground + 0.0 * size), (x + (ahead - gap) * size, ground - 0.01 * size)),
        **more,
    )
    wide = 0.17 * pose.spread + 0.03
    return replace(pose, hands=(pose.torso(wide + 0.1 * turn, -0.02), pose.torso(-wide + 0.1 * turn, -0.02)))


def running(x: float, size: float, way: float, stride: float = 1.0, ground: float = GROUND) -> Pose:
    """In profile, one leg ahead and one behind, off the ground; `way` is 1 to the right or -1."""
    hip = (x, ground - (HIP_HEIGHT + 0.04) * size)
    ahead, behind = (
        (x + way * 0.24 * stride * size, ground - 0.10 * size),
        (x - way * 0.24 * stride * size, ground - 0.13 * size),
    )
    pose = Pose(
        hip=hip,
        size=size,
        turn=0.8 * way,
        lean=0.22 * way,
        hands=(hip, hip),
        feet=(ahead, behind) if way > 0 else (behind, ahead),
    )
    front, back = relative(pose, way * 0.34, -0.27), relative(pose, -way * 0.17, -0.12)
    return replace(pose, hands=(back, front) if way > 0 else (front, back))


def jumping(x: float, size: float, height: float, turn: float = 0.0, ground: float = GROUND) -> Pose:
    """In the air, limbs apart."""
    pose = standing(x, size, turn, ground=ground - height)
    return replace(
        pose,
        hands=(relative(pose, 0.3, -0.42), relative(pose, -0.3, -0.42)),
        feet=(relative(pose, 0.2, 0.15), relative(pose, -0.2, 0.15)),
    )


def crawling(x: float, size: float, way: float, ground: float = GROUND) -> Pose:
    """On all fours, looking to `way`; `x` is the middle of the back."""
    hip = (x - way * 0.15 * size, ground - 0.235 * size)
    pose = Pose(
        hip=hip,
        size=size,
        turn=0.75 * way,
        lean=1.25 * way,
        tilt=-0.02 * way,
        follow=0.12,
        hands=(hip, hip),
        feet=(hip, hip),
    )
    front, rear = hip[0] + way * 0.30 * size, hip[0] - way * 0.02 * size
    hands = ((front + 0.07 * way * size, ground - 0.035 * size), (front - 0.03 * way * size, ground - 0.03 * size))
    feet = ((rear + 0.06 * way * size, ground - 0.04 * size), (rear - 0.06 * way * size, ground - 0.04 * size))
    return replace(pose, hands=hands, feet=feet)


def lying(x: float, size: float, way: float, ground: float = GROUND, **more: object) -> Pose:
    """On the back, head towards `way`."""
    hip = (x - way * 0.18 * size, ground - 0.12 * size)
    pose = Pose(
        hip=hip, size=size, turn=-0.25 * way, lean=1.38 * way, follow=0.8, hands=(hip, hip), feet=(hip, hip), **more
    )
    return replace(
        pose,
        hands=(pose.torso(0.10, -0.02), pose.torso(-0.10, -0.02)),
        feet=(pose.torso(0.09, 0.235), pose.torso(-0.09, 0.235)),
    )


def bowing(x: float, size: float, way: float, ground: float = GROUND) -> Pose:
    """Standing, bent forward, paws on the knees."""
    pose = standing(x, size, 0.7 * way, lean=0.85 * way, ground=ground, follow=0.55)
    return replace(pose, hands=(relative(pose, 0.20 * way, 0.10), relative(pose, 0.13 * way, 0.11)))


def raised(pose: Pose, left: Point | None = None, right: Point | None = None) -> Pose:
    """The pose with one or both paws moved to scene points."""
    return replace(pose, hands=(left or pose.hands[0], right or pose.hands[1]))
