"""Two methods on the same prompts and seeds: paired differences, McNemar on the first seed, Holm over the table."""

from pathlib import Path

import pytest

from training.common import stats
from training.evaluation.comparison import compare, comparison_text
from training.evaluation.prompts import Entry


def entries(cases, seeds=1):
    return [
        Entry(case * seeds + seed + 1, Path(f"{case}-{seed}.png"), f"prompt {case}", seed=seed)
        for case in range(cases)
        for seed in range(seeds)
    ]


def test_differences_are_paired_and_their_p_values_one_family():
    own = entries(12)
    first = [{"CLIP-T": 30.0 + 5 * index, "happened": 1.0, "found": 1.0} for index in range(12)]
    second = [{"CLIP-T": 29.0 + 5 * index, "happened": float(index < 4), "found": 1.0} for index in range(12)]
    results = {one.key: one for one in compare(own, first, second)}
    assert set(results) == {"CLIP-T", "happened", "found"}
    assert results["CLIP-T"].difference.value == pytest.approx(1) and results["CLIP-T"].only_first is None
    happened = results["happened"]
    assert (happened.only_first, happened.only_second, happened.p) == (8, 0, stats.mcnemar(8, 0))
    assert results["found"].p == 1.0
    assert {key: one.adjusted for key, one in results.items()} == pytest.approx(
        stats.holm({key: one.p for key, one in results.items()})
    )


def test_only_the_first_seed_of_a_case_enters_mcnemar():
    own = list(reversed(entries(3, seeds=4)))
    first = [{"swap": float(entry.seed != 0)} for entry in own]
    second = [{"swap": 0.0} for _ in own]
    (swap,) = compare(own, first, second)
    assert (swap.only_first, swap.only_second, swap.p) == (0, 0, 1.0)
    assert swap.difference.value == 0.75 and swap.difference.cases == 3


def test_a_measure_that_one_method_lacks_is_not_compared():
    assert compare(entries(2), [{"DINO": 1.0}] * 2, [{"DINO": None}] * 2) == []


def test_the_table_names_both_its_tests_and_its_power():
    own = entries(100)
    results = compare(own, [{"happened": 1.0}] * 100, [{"happened": 0.0}] * 100)
    text = comparison_text(results, "ours", "theirs", 100)
    assert "| happened % | 100.0 | 0.0 | 100.0 [100.0, 100.0] | 100 / 0 | 0.0000 * | 0.0000 * |" in text
    assert "with a chance of 54 %" in text and "ours minus theirs" in text
