"""One creature alone (also the reference pictures of an identity), and three together."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .pose import Pose
from .pose_presets import GROUND, bowing, crawling, jumping, lying, raised, relative, running, sitting, standing
from .staging import Staging

Single = Callable[[np.random.Generator], Pose]


def _place(rng: np.random.Generator, base: float = 0.74) -> tuple[float, float, float]:
    return float(0.5 + rng.uniform(-0.08, 0.08)), float(base * rng.uniform(0.92, 1.06)), float(rng.uniform(-0.45, 0.45))


def _way(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


def _standing(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng)
    return standing(x, size, turn, tilt=float(rng.uniform(-0.12, 0.12)))


def _sitting(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.80)
    return sitting(x, size, turn, ground=GROUND - 0.01)


def _waving(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.72)
    pose = standing(x, size, 0.5 * turn)
    high = relative(pose, _way(rng) * rng.uniform(0.40, 0.44), -0.42)
    return raised(pose, left=high) if high[0] > x else raised(pose, right=high)


def _cheering(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.68)
    pose = standing(x, size, 0.5 * turn)
    return raised(pose, relative(pose, 0.42, -0.46), relative(pose, -0.42, -0.46))


def _jumping(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.66)
    return jumping(x, size, float(rng.uniform(0.08, 0.14)), 0.5 * turn)


def _running(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.70)
    return running(x, size, _way(rng), float(rng.uniform(0.9, 1.1)))


def _sleeping(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.74)
    return lying(x, size, _way(rng), ground=GROUND - 0.04, eyes_closed=True)


def _crawling(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.78)
    return crawling(x, size, _way(rng))


def _bowing(rng: np.random.Generator) -> Pose:
    x, size, _ = _place(rng, 0.74)
    way = _way(rng)
    return bowing(x - 0.08 * way, size, way)


def _dancing(rng: np.random.Generator) -> Pose:
    x, size, turn = _place(rng, 0.70)
    side = _way(rng)
    pose = standing(x, size, 0.5 * turn, lean=0.14 * side)
    pose = raised(pose, relative(pose, 0.42, -0.36), relative(pose, -0.40, -0.20))
    foot = relative(pose, -0.23 * side, 0.08)
    return replace(pose, feet=(foot, pose.feet[1]) if side < 0 else (pose.feet[0], foot))


SINGLES: dict[str, Single] = {
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
    return 0.5 + np.array((-0.325, 0.0, 0.325)) + rng.uniform(-0.008, 0.008, 3), 0.48 * rng.uniform(0.95, 1.05, 3)


def _three_standing(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(standing(x, s, float(rng.uniform(-0.2, 0.2))) for x, s in zip(xs, sizes)))


def _three_sitting(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(sitting(x, 1.06 * s, float(rng.uniform(-0.15, 0.15))) for x, s in zip(xs, sizes)))


def _three_holding(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    first, second, third = (standing(x, s) for x, s in zip(xs, sizes))
    level = GROUND - 0.24 * float(sizes.mean())
    grips = (((first.hip[0] + second.hip[0]) / 2, level), ((second.hip[0] + third.hip[0]) / 2, level))
    return Staging((raised(first, left=grips[0]), raised(second, grips[1], grips[0]), raised(third, right=grips[1])))


def _three_cheering(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    poses = (standing(x, 0.97 * s) for x, s in zip(xs, sizes))
    return Staging(tuple(raised(pose, relative(pose, 0.36, -0.50), relative(pose, -0.36, -0.50)) for pose in poses))


def _three_running(rng: np.random.Generator) -> Staging:
    xs, sizes = _row(rng)
    return Staging(tuple(running(x, 0.97 * s, 1.0) for x, s in zip(xs, sizes)))


TRIOS: dict[str, Callable[[np.random.Generator], Staging]] = {
    "standing in a row": _three_standing,
    "sitting in a row": _three_sitting,
    "holding hands": _three_holding,
    "cheering together": _three_cheering,
    "running in a row": _three_running,
}
