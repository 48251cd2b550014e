"""How far a judge agrees with people: kappa, AUC, and the share corrected for its errors.

Sources: Cohen (1960); Hanley & McNeil (1982), AUC as the Mann-Whitney statistic; Rogan & Gladen (1978).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

LEAST_INFORMATION = 0.2  # below sensitivity + specificity = 1.2 a judge says too little to be corrected


def kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Cohen's kappa of two raters of the same items; None where chance alone would make them agree always."""
    if not first or len(first) != len(second):
        raise ValueError(f"expected two answers for each item, got {len(first)} and {len(second)}")
    count = len(first)
    agreed = sum(a == b for a, b in zip(first, second)) / count
    expected = (
        sum(sum(a == kind for a in first) * sum(b == kind for b in second) for kind in {*first, *second}) / count**2
    )
    return None if expected == 1 else (agreed - expected) / (1 - expected)


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Chance that a positive item scores above a negative one, ties half; None without both kinds."""
    above = np.array([score for score, label in zip(scores, positive) if label])
    below = np.array([score for score, label in zip(scores, positive) if not label])
    if not len(above) or not len(below):
        return None
    gaps = above[:, None] - below[None, :]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def corrected_share(share: float, sensitivity: float, specificity: float) -> float | None:
    """Rogan & Gladen: (p + Sp - 1) / (Se + Sp - 1), cut to [0, 1]; None if Se + Sp <= 1.2."""
    information = sensitivity + specificity - 1
    if information <= LEAST_INFORMATION + 1e-12:
        return None
    return min(1.0, max(0.0, (share + specificity - 1) / information))
