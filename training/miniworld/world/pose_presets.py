"""Building blocks of relations: a creature that stands, sits, runs, jumps, lies, crawls, bows."""

import math
from dataclasses import replace

from .pose import HIP_HEIGHT, Point, Pose

GROUND = 0.90


def relative(pose: Pose, x: float, y: float) -> Point:
    """Return the point `x`, `y` heights away from the hip, not tipped by the torso's lean."""
    return (pose.hip[0] + x * pose.size, pose.hip[1] + y * pose.size)


def raised(pose: Pose, left: Point | None = None, right: Point | None = None) -> Pose:
    """Move one or both front paws of a pose to scene points."""
    return replace(pose, hands=(left or pose.hands[0], right or pose.hands[1]))


def standing(
    x: float, size: float, turn: float = 0.0, lean: float = 0.0, ground: float = GROUND, **more: object
) -> Pose:
    """Pose upright on the ground, arms hanging; `x` is where the feet are."""
    hip = (x, ground - HIP_HEIGHT * size)
    gap = 0.105 * (0.45 + 0.55 * math.cos(turn * 1.25))
    feet = ((x + gap * size, ground - 0.055 * size), (x - gap * size, ground - 0.055 * size))
    return hanging(Pose(hip, size, turn, (hip, hip), feet, lean, **more))


def hanging(pose: Pose, out: float = 0.0) -> Pose:
    """Pose the arms down at the sides, `out` heights away from the body."""
    wide = 0.195 * pose.spread + 0.035 + out
    ahead = 0.05 * pose.turn
    return replace(pose, hands=(pose.torso(wide + ahead, 0.0), pose.torso(-wide + ahead, 0.0)))


def sitting(
    x: float, size: float, turn: float = 0.0, lean: float = 0.0, ground: float = GROUND, **more: object
) -> Pose:
    """Pose on the ground, legs forward and apart, soles towards us."""
    hip = (x, ground - 0.075 * size)
    ahead = 0.20 * turn
    gap = 0.175 * (0.3 + 0.7 * math.cos(turn * 1.25))
    feet = ((x + (gap + ahead) * size, ground + 0.005 * size), (x + (ahead - gap) * size, ground - 0.005 * size))
    pose = Pose(hip, size, turn, (hip, hip), feet, lean, **more)
    wide = 0.175 * pose.spread + 0.02
    return replace(pose, hands=(pose.torso(wide + 0.1 * turn, -0.035), pose.torso(-wide + 0.1 * turn, -0.035)))


def running(x: float, size: float, way: float, stride: float = 1.0, ground: float = GROUND) -> Pose:
    """Pose three quarters from the side, one leg ahead, one behind, off the ground; `way` is 1 to the right or -1."""
    hip = (x, ground - (HIP_HEIGHT + 0.05) * size)
    ahead = (x + way * 0.22 * stride * size, ground - 0.11 * size)
    behind = (x - way * 0.22 * stride * size, ground - 0.15 * size)
    feet = (ahead, behind) if way > 0 else (behind, ahead)
    pose = Pose(hip, size, 0.7 * way, (hip, hip), feet, lean=0.22 * way)
    front, back = relative(pose, way * 0.36, -0.20), relative(pose, -way * 0.24, -0.14)
    return replace(pose, hands=(front, back) if way > 0 else (back, front))


def jumping(x: float, size: float, height: float, turn: float = 0.0, ground: float = GROUND) -> Pose:
    """Pose in the air, limbs apart; `height` is a fraction of the picture."""
    pose = standing(x, size, turn, ground=ground - height)
    return replace(
        pose,
        hands=(relative(pose, 0.40, -0.42), relative(pose, -0.40, -0.42)),
        feet=(relative(pose, 0.19, 0.11), relative(pose, -0.19, 0.11)),
    )


def crawling(x: float, size: float, way: float, ground: float = GROUND) -> Pose:
    """Pose on all fours, looking to `way`; `x` is the middle from tail to nose."""
    hip = (x - way * 0.29 * size, ground - 0.20 * size)
    pose = Pose(hip, size, 0.6 * way, (hip, hip), (hip, hip), lean=1.25 * way, follow=0.05)
    front, rear = hip[0] + way * 0.25 * size, hip[0] - way * 0.02 * size
    hands = ((front + 0.08 * way * size, ground - 0.055 * size), (front - 0.04 * way * size, ground - 0.05 * size))
    feet = ((rear + 0.07 * way * size, ground - 0.055 * size), (rear - 0.06 * way * size, ground - 0.055 * size))
    return replace(pose, hands=hands, feet=feet)


def lying(x: float, size: float, way: float, ground: float = GROUND, **more: object) -> Pose:
    """Pose on the back, head towards `way`; `x` is the middle from soles to ears."""
    hip = (x - way * 0.35 * size, ground - 0.17 * size)
    pose = Pose(hip, size, -0.2 * way, (hip, hip), (hip, hip), lean=1.42 * way, follow=0.82, **more)
    return replace(
        pose,
        hands=(pose.torso(0.20, -0.13), pose.torso(-0.20, -0.13)),
        feet=(pose.torso(0.08, 0.165), pose.torso(-0.08, 0.165)),
    )


def bowing(x: float, size: float, way: float, ground: float = GROUND) -> Pose:
    """Pose standing, bent forward, paws on the knees."""
    pose = standing(x, size, 0.6 * way, lean=0.75 * way, ground=ground, follow=0.5)
    return replace(pose, hands=(relative(pose, 0.20 * way, 0.05), relative(pose, 0.12 * way, 0.06)))
