"""Count the steps of a sampling schedule from the sigmas of its model calls.

A sampler may evaluate the model more than once per step: between two sigmas (DPM-2), or at the end of a step and again
at the beginning of the next (Heun, arXiv:2206.00364, algorithm 1). The sigmas distinguish these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_SAME = 1e-5  # relative difference of two sigmas that are one


class StepCounter:
    """Numbers the evaluations of one sampling run by steps, from 0.

    Attributes:
        step: of the last evaluation; -1 before the first.
    """

    def __init__(self) -> None:
        self.step = -1
        self._sigma: float | None = None
        self._ends_steps = False  # the sampler evaluates at the end of a step, as Heun's does

    def advance(self, sigma: float, schedule: Sequence[float]) -> int:
        """Count the next evaluation and return its step.

        Args:
            sigma: of the evaluation.
            schedule: the sigmas at which steps begin, in order, and the last one's end; without one (no two sigmas)
                every evaluation is a step.
        """
        repeated = self._sigma is not None and _same(sigma, self._sigma)
        place = _place(sigma, schedule)
        if place is None:
            self.step += 1
        elif repeated and place == self.step and _same(sigma, schedule[place]):
            self._ends_steps = True  # the end of the step before had been taken for this beginning
        elif self._ends_steps and not repeated and place == self.step + 1 and _same(sigma, schedule[place]):
            pass  # the end of this step; the next begins when the sigma comes again
        else:
            self.step = place
        self._sigma = sigma
        return self.step


def _place(sigma: float, schedule: Sequence[float]) -> int | None:
    """Return the step whose sigmas a sigma lies among, its beginning included."""
    if len(schedule) < 2:
        return None
    rising = schedule[-1] > schedule[0]
    begun = [
        index
        for index, start in enumerate(schedule[:-1])
        if _same(sigma, start) or (sigma > start if rising else sigma < start)
    ]
    return begun[-1] if begun else 0


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=1e-9)
