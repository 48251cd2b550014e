"""The measures of who is where on renders whose truth is known: boxes, species and traits as the renderer drew them."""

import numpy as np
import pytest

from training.evaluation.assignment.measures import Picture, measure
from training.miniworld.recipes.labelled_scenes import trait_row
from training.miniworld.world.relations import PAIRS
from training.miniworld.world.renderer import render
from training.miniworld.world.scene import ScenePlan
from training.miniworld.world.triplets import evaluation_plans

FLOOR = 0.5  # share of traits that two creatures of a pair may have in common


def looks(identities):
    """(N, 8) traits; the similarity of two creatures is the share they have in common."""
    return np.array([trait_row(who) for who in identities])


def seen(asked: ScenePlan, drawn_identities, staging=None):
    """What an exact detector and an exact encoder make of a picture that shows some creatures in the asked poses."""
    from dataclasses import replace

    drawn = render(replace(asked, cast=tuple(drawn_identities), staging=staging or asked.staging), 64)
    wanted = render(asked, 64).boxes
    similarity = (looks(asked.cast)[:, None] == looks(drawn_identities)[None]).mean(-1)
    names = tuple(who.species for who in asked.cast)
    return measure(
        Picture(
            similarity,
            names,
            tuple(who.species for who in drawn_identities),
            drawn.boxes.astype(float),
            wanted.astype(float),
        ),
        FLOOR,
    )[0]


@pytest.fixture(scope="module")
def plans():
    """Two scenes of each of the 23 relations, the looks of whose creatures differ enough to be told apart."""
    found = [plan for relation in PAIRS for plan in evaluation_plans(relation, 2, 40)]
    return [plan for plan in found if (looks(plan.cast)[0] == looks(plan.cast)[1]).mean() < FLOOR]


def test_honest_renders_have_no_swap_and_swapped_ones_have_one_always(plans):
    assert len(plans) >= 30
    honest = [seen(plan, plan.cast) for plan in plans]
    swapped = [seen(plan, plan.cast[::-1]) for plan in plans]
    assert {one.swap for one in honest} == {0.0} and {one.swap for one in swapped} == {1.0}
    assert {one.found for one in (*honest, *swapped)} == {1.0}
    assert {one.confusion for one in (*honest, *swapped)} == {0.0}
    assert {one.count_exact for one in (*honest, *swapped)} == {1.0}


def test_a_subject_drawn_twice_is_found_out(plans):
    for plan in plans:
        twice = seen(plan, (plan.cast[0],) * 2)
        assert (twice.found, twice.count_exact, twice.duplicate, twice.swap) == (0.5, 0.0, 1.0, 0.0)


def test_a_missing_subject_is_missing(plans):
    from dataclasses import replace

    for plan in plans:
        alone = replace(plan.staging, poses=plan.staging.poses[:1], order=(), props=())
        one = seen(plan, plan.cast[:1], alone)
        assert (one.found, one.fewer, one.count_exact, one.swap) == (0.5, 1.0, 0.0, 0.0)
