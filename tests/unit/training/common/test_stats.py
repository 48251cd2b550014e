"""Intervals, paired tests and agreement against values computed by hand or published with the methods."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.common import agreement, stats

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=12)


@pytest.mark.parametrize(
    "successes, trials, low, high", [(7, 10, 0.397, 0.892), (0, 10, 0, 0.278), (84, 100, 0.756, 0.899)]
)
def test_wilson_interval(successes, trials, low, high):
    estimate = stats.wilson(successes, trials)
    assert (estimate.value, estimate.samples) == (successes / trials, trials)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@pytest.mark.parametrize(
    "first, second, p", [(9, 2, 0.0654), (15, 5, 0.0414), (6, 0, 0.03125), (5, 0, 0.0625), (0, 0, 1)]
)
def test_exact_mcnemar_is_symmetric_and_as_published(first, second, p):
    assert stats.mcnemar(first, second) == stats.mcnemar(second, first) == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(
    "cases, simulated, exact",
    [(24, 0.07, 0.0564), (56, 0.29, 0.2810), (100, 0.53, 0.5444), (200, 0.88, 0.8753), (400, 0.99, 0.9950)],
)
def test_power_of_mcnemar(cases, simulated, exact):
    """The rounded values are of 4000 simulated experiments; the sum over all outcomes is exact."""
    assert stats.mcnemar_power(cases) == pytest.approx(exact, abs=5e-5)
    assert stats.mcnemar_power(cases) == pytest.approx(simulated, abs=0.015)


def test_power_is_the_share_of_simulated_significant_tests():
    rng = np.random.default_rng(0)
    rows = rng.random((4000, 60))
    significant = [stats.mcnemar(int((row < 0.3).sum()), int((row > 0.9).sum())) < 0.05 for row in rows]
    assert stats.mcnemar_power(60, 0.3, 0.1) == pytest.approx(np.mean(significant), abs=0.03)


@pytest.mark.parametrize("share, corrected", [(0.60, 0.60), (0.10, 0)])
def test_rogan_gladen_correction_is_cut_to_a_share(share, corrected):
    assert agreement.corrected_share(share, 0.90, 0.85) == pytest.approx(corrected)


def test_a_judge_that_knows_nothing_is_not_corrected():
    assert agreement.corrected_share(0.5, 0.6, 0.6) is None
    assert agreement.corrected_share(0.5, 0.6, 0.61) is not None


@given(st.floats(0.6, 1), st.floats(0.6, 1), st.floats(0, 1))
def test_correction_recovers_the_share_behind_an_imperfect_judge(sensitivity, specificity, truth):
    seen = truth * sensitivity + (1 - truth) * (1 - specificity)
    corrected = agreement.corrected_share(seen, sensitivity, specificity)
    assert corrected is None or corrected == pytest.approx(truth, abs=1e-6)


def test_seeds_of_a_case_are_averaged_first_and_cases_are_resampled():
    estimate = stats.bootstrap_mean([1.0, 3.0, 6.0], ["a", "a", "b"])  # case means 2 and 6
    assert (estimate.value, estimate.low, estimate.high) == (4.0, 2.0, 6.0)
    assert (estimate.cases, estimate.samples) == (2, 3)


def test_one_case_has_no_interval():
    estimate = stats.bootstrap_mean([1.0, 3.0], ["a", "a"])
    assert (estimate.value, estimate.low, estimate.high) == (2.0, None, None)
    assert estimate.text() == "2.0"
    assert stats.paired_difference([1.0], [0.5], ["a"]).low is None


def test_bootstrap_interval_is_that_of_all_resamples_where_they_can_be_listed():
    values = [0.0, 1.0, 5.0]
    means = [np.mean(rows) for rows in itertools.product(values, repeat=3)]
    estimate = stats.bootstrap_mean(values)
    assert (estimate.low, estimate.high) == tuple(np.percentile(means, stats.QUANTILES, method="inverted_cdf"))


@given(SHARES)
def test_an_interval_holds_its_estimate_and_does_not_depend_on_the_names_of_cases(values):
    estimate = stats.bootstrap_mean(values)
    assert estimate.low <= estimate.value + 1e-12 and estimate.value <= estimate.high + 1e-12
    assert estimate == stats.bootstrap_mean(values, [f"case {number}" for number in range(len(values))])


def test_a_ratio_is_of_sums_not_a_mean_of_ratios():
    estimate = stats.bootstrap_ratio([1, 4], [1, 8])
    assert (estimate.value, estimate.low, estimate.high) == (5 / 9, 0.5, 1.0)
    with pytest.raises(ValueError, match="positive sum"):
        stats.bootstrap_ratio([0, 0], [0, 0])


def test_resamples_without_a_denominator_do_not_count():
    """A quarter of the resamples of these two cases holds the empty one alone; the rest all give 1/2."""
    estimate = stats.bootstrap_ratio([1, 0], [2, 0])
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


@given(SHARES)
def test_a_method_does_not_differ_from_itself(values):
    difference = stats.paired_difference(values, values, range(len(values)))
    assert (difference.value, difference.low, difference.high, difference.not_above) == (0, 0, 0, 1)


def test_pairing_removes_what_the_cases_differ_by():
    easy_and_hard = np.linspace(0, 100, 40)
    difference = stats.paired_difference(easy_and_hard + 1, easy_and_hard, range(40))
    assert (difference.low, difference.high) == (pytest.approx(1), pytest.approx(1))
    assert difference.not_above == 0
    unpaired = stats.bootstrap_mean(easy_and_hard)
    assert unpaired.high - unpaired.low > 10


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="expected pairs, got 2, 1 values"):
        stats.paired_difference([1, 2], [1], ["a", "b"])


def test_holm_by_hand_and_in_the_given_order():
    assert stats.holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert stats.holm({}) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(family):
    adjusted = stats.holm(family)
    assert list(adjusted) == list(family)
    assert all(family[name] <= adjusted[name] <= 1 for name in family)
    ranked = sorted(family, key=family.get)
    assert [adjusted[name] for name in ranked] == sorted(adjusted.values())


def test_kappa_is_one_zero_and_negative():
    assert agreement.kappa("yynn", "yynn") == 1
    assert agreement.kappa("yynn", "ynyn") == 0
    assert agreement.kappa("yn", "ny") == -1
    assert agreement.kappa("yy", "yy") is None


def test_kappa_of_cohens_table():
    first = "y" * 25 + "n" * 25  # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed .7, by chance .5
    second = "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    assert agreement.kappa(first, second) == pytest.approx(0.4)


def test_auc_counts_ties_half():
    assert agreement.auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False]) == 3.5 / 4
    assert agreement.auc([0.9], [True]) is None


def test_a_share_has_wilsons_interval_unless_cases_repeat():
    assert stats.share([1, 0, 1], ["a", "b", "c"]) == stats.wilson(2, 3)
    assert stats.share([1, 0, 1], ["a", "a", "c"]) == stats.bootstrap_mean([1, 0, 1], ["a", "a", "c"])
    assert stats.share([1, 0.5], ["a", "b"]) == stats.bootstrap_mean([1, 0.5])


def test_sign_flips_by_hand():
    assert stats.sign_flip([1, 2, 3]) == 2 / 8  # only all one way is as far from 0
    assert stats.sign_flip([1, 1, -1]) == 1.0
    assert stats.sign_flip([0, 0]) == 1.0


def test_few_cases_cannot_look_certain_and_many_can():
    assert stats.sign_flip([5.0] * 4) == 0.125
    assert stats.sign_flip([5.0] * 40) == pytest.approx(1 / 2001)
    noise = np.random.default_rng(1).normal(size=60)
    assert stats.sign_flip(noise) > 0.05
