"""Maximum-weight assignment (Kuhn 1955, Munkres 1957), shortest augmenting paths with potentials, O(R^2 C).

Written here because scipy is no dependency of this package; equal to `scipy.optimize.linear_sum_assignment`.
"""

from __future__ import annotations

import numpy as np

_TIE = 1e-9  # added to cosines above the floor: of two assignments of one weight, the one that assigns more wins


def maximum_assignment(weights: np.ndarray) -> list[int]:
    """Assign every row a column of its own so that the sum of weights is largest.

    Args:
        weights: (R, C) finite, R <= C.

    Returns:
        R column indices.

    Raises:
        ValueError: more rows than columns, or weights that are no numbers.
    """
    weights = np.asarray(weights, float)
    rows, columns = weights.shape
    if rows > columns or not np.isfinite(weights).all():
        raise ValueError(f"expected finite weights with no more rows than columns, got {rows} x {columns}")
    # Row and column 0 are helpers: `owner[0]` is the row that looks for a column.
    price_row, price_column = np.zeros(rows + 1), np.zeros(columns + 1)
    owner, came_from = np.zeros(columns + 1, int), np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        slack, visited = np.full(columns + 1, np.inf), np.zeros(columns + 1, bool)
        while owner[column]:
            # 1. extend the tree of alternating paths by the column that costs least
            visited[column] = True
            here = owner[column]
            reduced = -weights[here - 1] - price_row[here] - price_column[1:]
            better = ~visited[1:] & (reduced < slack[1:])
            slack[1:][better], came_from[1:][better] = reduced[better], column
            column = 1 + int(np.where(visited[1:], np.inf, slack[1:]).argmin())
            step = slack[column]
            # 2. move the potentials so that this column is reached at no cost
            price_row[owner[visited]] += step
            price_column[visited] -= step
            slack[~visited] -= step
        # 3. flip the path from the free column back to the row
        while column:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    assigned = {owner[column]: column - 1 for column in range(1, columns + 1) if owner[column]}
    return [int(assigned[row]) for row in range(1, rows + 1)]


def assign(similarity: np.ndarray, floor: float) -> list[int | None]:
    """Assign references to detections; a reference that no detection resembles by more than `floor` gets none.

    The matrix is padded with one column of value `floor` for each reference.

    Args:
        similarity: (R, D) cosines; D may be 0.
        floor: cosine at or below which a detection matches no reference.

    Returns:
        For each reference the index of its detection, or None.
    """
    references, detections = similarity.shape
    gains = np.where(similarity > floor, similarity - floor + _TIE, -1.0)
    columns = maximum_assignment(np.concatenate((gains, np.zeros((references, references))), axis=1))
    return [column if column < detections else None for column in columns]
