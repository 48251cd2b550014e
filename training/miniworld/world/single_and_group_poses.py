"""One creature alone (also the reference pictures of an identity), and three together."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .pose import Pose
from .pose_presets import GROUND, bowing, crawling, jumping, lying, raised, relative, running, sitting, standing
from .relations import Staging


def _place(rng: np.random.Generator, base: float = 0.66) -> tuple[float, float, float]:
    return float(0.5 + rng.uniform(-0.1, 0.1)), float(base * rng.uniform(0.88, 1.08)), float(rng.uniform(-0.45, 0.45))


def _standing(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng)
    return standing(x, size, turn, tilt=float(rng.uniform(-0.1, 0.1)))


def _sitting(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.7)
    return sitting(x, size, turn, ground=GROUND - 0.02)


def _waving(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng)
    pose = standing(x, size, turn)
    high = relative(pose, float(rng.choice((-1.0, 1.0))) * rng.uniform(0.28, 0.36), -0.5)
    return raised(pose, left=high) if high[0] > x else raised(pose, right=high)


def _cheering(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.6)
    pose = standing(x, size, turn)
    return raised(pose, relative(pose, 0.32, -0.56), relative(pose, -0.32, -0.56))


def _jumping(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.6)
    return jumping(x, size, float(rng.uniform(0.08, 0.16)), turn)


def _running(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.62)
    return running(x, size, float(rng.choice((-1.0, 1.0))), float(rng.uniform(0.85, 1.1)))


def _sleeping(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.7)
    return lying(x, size, float(rng.choice((-1.0, 1.0))), ground=GROUND - 0.03, eyes_closed=True)


def _crawling(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.72)
    return crawling(x, size, float(rng.choice((-1.0, 1.0))))


def _bowing(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.64)
    return bowing(x, size, float(rng.choice((-1.0, 1.0))))


def _dancing(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.62)
    side = float(rng.choice((-1.0, 1.0)))
    pose = standing(x, size, turn, lean=0.15 * side)
    pose = raised(pose, relative(pose, 0.33, -0.38), relative(pose, -0.33, -0.24))
    foot = relative(pose, -0.26 * side, 0.12)
    return replace(pose, feet=(foot, pose.feet[1]) if side < 0 else (pose.feet[0], foot))


SINGLE_POSES: dict[str, Callable[[np.random.Generator], Pose]] = {
    "standing": _standing,
    "sitting": _sitting,
    "waving": _waving,
    "cheering": _cheering,
    "jumping": _jumping,
    "running": _running,
    "sleeping": _sleeping,
    "crawling": _crawling,
    "bowing": _bowing,
    "dancing": _dancing,
}


def _row(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return 0.5 + np.array((-0.31, 0.0, 0.31)) + rng.uniform(-0.015, 0.015, 3), 0.46 * rng.uniform(0.92, 1.08, 3)


def _three_standing(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(standing(x, s, float(rng.uniform(-0.2, 0.2))) for x, s in zip(xs, sizes)))


def _three_sitting(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(sitting(x, 1.1 * s, float(rng.uniform(-0.15, 0.15))) for x, s in zip(xs, sizes)))


def _three_holding(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    first, second, third = (standing(x, s) for x, s in zip(xs, sizes))
    level = GROUND - 0.27 * float(sizes.mean())
    grips = (((first.hip[0] + second.hip[0]) / 2, level), ((second.hip[0] + third.hip[0]) / 2, level))
    return Staging((raised(first, left=grips[0]), raised(second, grips[1], grips[0]), raised(third, right=grips[1])))


def _three_cheering(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    poses = (standing(x, s) for x, s in zip(xs, sizes))
    return Staging(tuple(raised(p, relative(p, 0.27, -0.58), relative(p, -0.27, -0.58)) for p in poses))


def _three_running(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(running(x, 0.94 * s, 1.0) for x, s in zip(xs, sizes)))


GROUP_POSES: dict[str, Callable[[np.random.Generator], Staging]] = {
    "standing in a row": _three_standing,
    "sitting in a row": _three_sitting,
    "holding hands": _three_holding,
    "cheering together": _three_cheering,
    "running in a row": _three_running,
}
