"""Model calls counted by steps, for the orders in which samplers evaluate."""

import pytest

from core.sampling_steps import StepCounter

SCHEDULE = [14.6, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0]


def steps(sigmas, schedule=SCHEDULE):
    counter = StepCounter()
    return [counter.advance(sigma, schedule) for sigma in sigmas]


def test_one_evaluation_a_step():
    assert steps(SCHEDULE[:-1]) == [0, 1, 2, 3, 4, 5]


def test_a_second_evaluation_between_two_sigmas_is_of_the_same_step():
    assert steps([14.6, 10.8, 8.0, 5.6, 4.0, 2.8]) == [0, 0, 1, 1, 2, 2]


def test_heun_ends_a_step_where_the_next_begins():
    """From the first repetition on; before it nobody can know."""
    assert steps([14.6, 8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0]) == [0, 1, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(("sigmas", "expected"), [
    ([14.6, 10.8, 10.8, 8.0, 4.0], [0, 0, 0, 1, 2]),  # twice between two sigmas
    ([14.6, 10.8, 14.6, 8.0, 4.0], [0, 0, 0, 1, 2]),  # twice at a beginning, but not in a row
], ids=str)  # fmt: skip
def test_only_a_beginning_twice_in_a_row_is_taken_for_an_end(sigmas, expected):
    assert steps(sigmas) == expected


@pytest.mark.parametrize(("sigma", "step"), [(1.0, 4), (1.5, 3), (3.0, 2)])
def test_after_an_end_was_seen_only_the_next_beginning_is_one(sigma, step):
    assert steps([14.6, 8.0, 8.0, 4.0, 4.0, sigma])[-1] == step


def test_what_lies_outside_of_the_schedule_is_of_its_first_or_last_step():
    assert steps([20.0, 14.6, *SCHEDULE[1:]]) == [0, 0, 1, 2, 3, 4, 5, 5]


def test_a_schedule_of_one_step():
    assert steps([2.0, 1.0], [2.0, 0.0]) == [0, 0]


def test_a_schedule_that_starts_late_counts_from_its_own_beginning():
    assert steps([2.0, 1.0, 0.5], [2.0, 1.0, 0.5, 0.0]) == [0, 1, 2]


def test_a_rising_schedule_counts_too():
    assert steps([0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 2.0]) == [0, 1, 2]


@pytest.mark.parametrize("schedule", [[], [1.0]])
def test_without_a_schedule_every_evaluation_is_a_step(schedule):
    assert steps([3.0, 3.0, 2.0], schedule) == [0, 1, 2]


def test_float_noise_is_no_other_sigma():
    assert steps([14.6 * (1 + 1e-7), 8.0 * (1 - 1e-7), 4.0 * (1 + 1e-6)]) == [0, 1, 2]


def test_small_sigmas_are_told_apart():
    assert steps([1.0, 0.005, 0.002], [1.0, 0.005, 0.002, 0.0]) == [0, 1, 2]
