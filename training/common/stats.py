"""Estimates with intervals, paired comparisons and power; one number of resamples for the whole package.

The unit is the *case* (a prompt with its references): seeds of one case are averaged first, and whole cases are
resampled, because pictures that share a prompt are not independent.

Sources: percentile and cluster bootstrap (Efron & Tibshirani 1993, chapters 13 and 8), Wilson's interval (1927),
exact McNemar test (McNemar 1947), Holm's step-down adjustment (1979).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
QUANTILES = (2.5, 97.5)  # percent: a 95 % interval
Z = 1.959963984540054  # the normal deviate that leaves 2.5 % on each side


@dataclass(frozen=True)
class Estimate:
    """A mean or a share with its 95 % interval.

    Attributes:
        value: the point estimate.
        low, high: the interval's ends; None where a single case allows none.
        cases: number of independent units.
        samples: number of single values (pictures, answers).
    """

    value: float
    low: float | None
    high: float | None
    cases: int
    samples: int

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """`value [low, high]`, each times `scale`."""
        number = f"{scale * self.value:.{digits}f}"
        if self.low is None or self.high is None:
            return number
        return f"{number} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"


@dataclass(frozen=True)
class Difference:
    """Mean paired difference, first minus second, over cases.

    Attributes:
        value, low, high: as in `Estimate`.
        not_above: share of resamples whose mean is <= 0.
        cases: number of cases paired.
    """

    value: float
    low: float | None
    high: float | None
    not_above: float | None
    cases: int


def case_means(values: Sequence[float], cases: Sequence[Hashable]) -> dict[Hashable, float]:
    """Average the values of each case, in order of first appearance.

    Raises:
        ValueError: no values, or not one case for each value.
    """
    if not len(values) or len(values) != len(cases):
        raise ValueError(
            f"expected at least one value and one case for each, got {len(values)} values and {len(cases)} cases"
        )
    sums: dict[Hashable, list[float]] = {}
    for value, case in zip(values, cases):
        sums.setdefault(case, []).append(float(value))
    return {case: sum(own) / len(own) for case, own in sums.items()}


def resampled_rows(count: int, seed: int = 0) -> np.ndarray:
    """Return indices of RESAMPLES bootstrap samples of `count` units: (RESAMPLES, count)."""
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def bootstrap_mean(values: Sequence[float], cases: Sequence[Hashable] | None = None, seed: int = 0) -> Estimate:
    """Mean over cases of each case's mean, with the percentile bootstrap over cases.

    Args:
        values: one number for each sample.
        cases: the case of each sample; None makes every sample a case.
        seed: seed of the resamples.

    Raises:
        ValueError: no values, or not one case for each value.
    """
    means = np.array(list(case_means(values, range(len(values)) if cases is None else cases).values()))
    low = high = None
    if len(means) > 1:
        low, high = np.percentile(means[resampled_rows(len(means), seed)].mean(1), QUANTILES).tolist()
    return Estimate(float(means.mean()), low, high, len(means), len(values))


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Estimate:
    """Sum of numerators over sum of denominators, resampled together; for shares of a varying number of parts.

    Raises:
        ValueError: the denominators sum to nothing.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if below.sum() <= 0:
        raise ValueError("expected denominators with a positive sum, got nothing to divide by")
    rows = resampled_rows(len(above), seed)
    possible = below[rows].sum(1)
    ratios = above[rows].sum(1)[possible > 0] / possible[possible > 0]
    low, high = np.percentile(ratios, QUANTILES).tolist() if len(above) > 1 else (None, None)
    return Estimate(float(above.sum() / below.sum()), low, high, len(above), len(above))


def wilson(successes: int, trials: int) -> Estimate:
    """Return a share with Wilson's 95 % interval.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected at least one trial and 0 to all successes, got {successes} of {trials}")
    share, scale = successes / trials, 1 + Z * Z / trials
    centre = (share + Z * Z / (2 * trials)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), trials, trials)


def share(values: Sequence[float], cases: Sequence[Hashable]) -> Estimate:
    """Return a share of yes-or-no values, with Wilson's interval where every case has one, else the bootstrap.

    Args:
        values: 0 or 1, or fractions of a picture's subjects (then always the bootstrap).
        cases: the case of each value.
    """
    if len(set(cases)) == len(values) and all(value in (0, 1) for value in values):
        return wilson(int(sum(values)), len(values))
    return bootstrap_mean(values, cases)


def paired_difference(
    first: Sequence[float], second: Sequence[float], cases: Sequence[Hashable], seed: int = 0
) -> Difference:
    """Mean of first minus second over cases, with the bootstrap over cases.

    Args:
        first, second: the same samples measured twice, in the same order.
        cases: the case of each sample.
        seed: seed of the resamples.

    Raises:
        ValueError: the sequences differ in length, or are empty.
    """
    if not len(first) == len(second) == len(cases):
        raise ValueError(f"expected pairs, got {len(first)}, {len(second)} values and {len(cases)} cases")
    gaps = np.array(list(case_means([a - b for a, b in zip(first, second)], cases).values()))
    if len(gaps) < 2:
        return Difference(float(gaps.mean()), None, None, None, len(gaps))
    means = gaps[resampled_rows(len(gaps), seed)].mean(1)
    low, high = np.percentile(means, QUANTILES).tolist()
    return Difference(float(gaps.mean()), low, high, float((means <= 0).mean()), len(gaps))


def sign_flip(gaps: Sequence[float]) -> float:
    """Two-sided p of the paired randomisation test (Fisher 1935): signs of the cases' differences exchanged at random.

    Exact where there are at most RESAMPLES ways, so that few cases cannot look certain: four give 0.125 at best.
    """
    gaps = np.asarray(gaps, float)
    if 2 ** len(gaps) <= RESAMPLES:
        signs = 1 - 2 * (np.arange(2 ** len(gaps))[:, None] >> np.arange(len(gaps)) & 1)
        return float((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean())
    signs = np.random.default_rng(0).choice((-1, 1), (RESAMPLES, len(gaps)))
    return float(((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).sum() + 1) / (RESAMPLES + 1))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test: min(1, 2 sum_{i <= min(b, c)} C(b+c, i) / 2^(b+c))."""
    total = only_first + only_second
    tail = sum(math.comb(total, count) for count in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**total)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust a family of p-values by Holm's step-down rule; same keys, same order."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def mcnemar_power(cases: int, only_new: float = 0.15, only_old: float = 0.05, level: float = 0.05) -> float:
    """Chance that the exact McNemar test comes out below `level`, computed exactly.

    Args:
        cases: number of independent pairs.
        only_new, only_old: chances, both above 0, that only one of the two methods succeeds on a case.
        level: significance level.
    """
    discordant, share = only_new + only_old, only_new / (only_new + only_old)
    power = 0.0
    for total in range(cases + 1):
        weight = _binomial(cases, total, discordant)
        if weight > 1e-12:
            power += weight * sum(
                _binomial(total, new, share) for new in range(total + 1) if mcnemar(new, total - new) < level
            )
    return power


def _binomial(trials: int, successes: int, chance: float) -> float:
    """Binomial probability for 0 < chance < 1, in logarithms so that large factorials do not overflow."""
    logs = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(logs + successes * math.log(chance) + (trials - successes) * math.log1p(-chance))
