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


def test_a_schedule_that_starts_late_counts_from_its_own_beginning():
    assert steps([2.0, 1.0, 0.5], [2.0, 1.0, 0.5, 0.0]) == [0, 1, 2]


def test_a_rising_schedule_counts_too():
    assert steps([0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 2.0]) == [0, 1, 2]


@pytest.mark.parametrize("schedule", [[], [1.0]])
def test_without_a_schedule_every_evaluation_is_a_step(schedule):
    assert steps([3.0, 3.0, 2.0], schedule) == [0, 1, 2]


def test_float_noise_is_no_other_sigma():
    assert steps([14.6 * (1 + 1e-7), 8.0 * (1 - 1e-7), 4.0]) == [0, 1, 2]
