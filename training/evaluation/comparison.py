"""Compare two sets of pictures of the same prompts pair by pair (`--against`).

A pair is the same line of the prompts file: the same case and the same seed. Differences are averaged over the seeds of
a case; cases are resampled. A yes-or-no measure (happened, swap, ...) is also tested by the exact McNemar test on the
first seed of each case, because seeds are not independent; numbers by exchanging the signs of the cases' differences.
All p-values of one table are one family for Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..common import stats
from .columns import COLUMNS, Column, Row
from .prompts import Entry

MARK = 0.05


@dataclass(frozen=True)
class Comparison:
    """One measure of two methods.

    Attributes:
        key: of the column.
        first, second: mean over the pairs of each method.
        difference: first minus second.
        only_first, only_second: pairs on the first seed in which one alone is 1; None for other measures.
        p: two-sided; of McNemar's exact test where a measure is yes or no, else of the sign-flip test over cases.
        adjusted: p after Holm over the table.
    """

    key: str
    first: float
    second: float
    difference: stats.Difference
    only_first: int | None
    only_second: int | None
    p: float | None
    adjusted: float | None


def compare(entries: Sequence[Entry], first: Sequence[Row], second: Sequence[Row]) -> list[Comparison]:
    """Compare every measure that both have.

    Args:
        entries: N lines.
        first, second: N rows each, of the pictures of each method.
    """
    results = []
    for column in COLUMNS.values():
        pairs = [
            index
            for index in range(len(entries))
            if first[index].get(column.key) is not None and second[index].get(column.key) is not None
        ]
        if pairs:
            own, other = ([float(rows[index][column.key]) for index in pairs] for rows in (first, second))
            results.append(_compare_column(column, [entries[index] for index in pairs], own, other))
    family = {one.key: one.p for one in results if one.p is not None}
    adjusted = stats.holm(family)
    return [Comparison(**{**vars(one), "adjusted": adjusted.get(one.key)}) for one in results]


def _compare_column(
    column: Column, entries: Sequence[Entry], first: Sequence[float], second: Sequence[float]
) -> Comparison:
    cases = [entry.case for entry in entries]
    difference = stats.paired_difference(first, second, cases)
    only_first = only_second = None
    p = None
    if column.kind == "share" and all(value in (0, 1) for value in (*first, *second)):
        seeds = {}  # the first seed of each case
        for index, entry in sorted(enumerate(entries), key=lambda item: (item[1].seed or 0, item[0])):
            seeds.setdefault(entry.case, index)
        only_first = sum(first[index] > second[index] for index in seeds.values())
        only_second = sum(first[index] < second[index] for index in seeds.values())
        p = stats.mcnemar(only_first, only_second)
    else:
        gaps = stats.case_means([a - b for a, b in zip(first, second)], cases)
        p = stats.sign_flip(list(gaps.values()))
    means = (sum(first) / len(first), sum(second) / len(second))
    return Comparison(column.key, *means, difference, only_first, only_second, p, None)


def comparison_text(results: Sequence[Comparison], first: str, second: str, cases: int) -> str:
    """Return the paired table, Markdown.

    Args:
        results: of `compare`.
        first, second: names of the two methods.
        cases: number of different cases.
    """
    lines = [
        f"| | {first} | {second} | difference [95 %] | only {first} / only {second} | p | p, Holm |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results:
        column = COLUMNS[one.key]
        scale, digits = (100, 1) if column.kind == "share" else (1, 1 if column.kind == "score" else 3)
        gap = stats.Estimate(one.difference.value, one.difference.low, one.difference.high, 0, 0)
        only = "" if one.only_first is None else f"{one.only_first} / {one.only_second}"
        marks = ["-" if p is None else f"{p:.4f}" + (" *" if p < MARK else "") for p in (one.p, one.adjusted)]
        lines.append(
            f"| {column.title} | {scale * one.first:.{digits}f} | {scale * one.second:.{digits}f} | "
            f"{gap.text(scale, digits)} | {only} | {' | '.join(marks)} |"
        )
    power = stats.mcnemar_power(min(cases, 1000))
    lines += [
        "",
        f"Differences are {first} minus {second}, over {cases} cases; * is p < {MARK}. McNemar's exact "
        "test on the first seed of each case where a measure is yes or no, sign flips of the "
        "cases' differences elsewhere.",
        f"Power: with {cases} cases and one seed, a method that alone succeeds on 15 % of cases, against 5 % for "
        f"the other, comes out as different with a chance of {100 * power:.0f} %.",
    ]
    return "\n".join(lines) + "\n"


def comparison_facts(results: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons for JSON."""
    return [asdict(one) for one in results]
