"""Assignment and its measures: goldens computed by hand, laws that hold for any picture."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.assignment.faces import id_conf_umo, id_sim_umo, multi_id, not_measured
from training.evaluation.assignment.hungarian import assign, maximum_assignment
from training.evaluation.assignment.measures import Picture, match_boxes, measure

LEFT, RIGHT, MIDDLE = (0.0, 0.2, 0.4, 0.9), (0.6, 0.2, 1.0, 0.9), (0.42, 0.0, 0.58, 0.2)


def picture(similarity, names=("cat", "bear"), detected=None, boxes=(LEFT, RIGHT), places=None):
    """By default detection j has the j-th name and stands in the j-th box."""
    similarity = np.array(similarity, float).reshape(len(names), -1)
    count = similarity.shape[1]
    detected = tuple(names[:count]) + ("cat",) * (count - len(names)) if detected is None else tuple(detected)
    places = [LEFT, RIGHT, MIDDLE][:count] if places is None else places
    return Picture(
        similarity,
        tuple(names),
        detected,
        np.array(places, float).reshape(count, 4),
        None if boxes is None else np.array(boxes[: len(names)], float),
    )


def measured(*args, floor=0.0, **changes):
    return measure(picture(*args, **changes), floor)[0]


@pytest.mark.parametrize(
    "similarity, assigned",
    [
        ([[0.8, 0.3], [0.4, 0.7]], [0, 1]),
        ([[0.3, 0.8], [0.7, 0.4]], [1, 0]),
        ([[0.8], [0.7]], [0, None]),
        ([[0.8, 0.2, 0.1], [0.75, 0.1, 0.2]], [0, 2]),
        (np.zeros((2, 0)), [None, None]),
    ],
)
def test_golden_assignments_at_floor_zero(similarity, assigned):
    assert assign(np.array(similarity), 0.0) == assigned


def test_what_is_not_above_the_floor_is_nobody():
    similarity = np.array([[0.8, 0.3], [0.4, 0.5]])
    assert assign(similarity, 0.49) == [0, 1]
    assert assign(similarity, 0.5) == [0, None]
    assert assign(similarity, 0.9) == [None, None]


@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 10**6))
def test_the_assignment_is_the_best_of_all(rows, more, seed):
    weights = np.random.default_rng(seed).normal(size=(rows, rows + more))
    best = max(
        sum(weights[row, column] for row, column in enumerate(chosen))
        for chosen in permutations(range(rows + more), rows)
    )
    columns = maximum_assignment(weights)
    assert len(set(columns)) == rows
    assert sum(weights[row, column] for row, column in enumerate(columns)) == pytest.approx(best)


def test_the_assignment_is_that_of_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.normal(size=sorted(rng.integers(1, 10, 2)))
        assert maximum_assignment(weights) == optimize.linear_sum_assignment(weights, maximize=True)[1].tolist()


def test_more_rows_than_columns_are_refused():
    with pytest.raises(ValueError, match="no more rows than columns, got 2 x 1"):
        maximum_assignment(np.zeros((2, 1)))


@st.composite
def pictures(draw):
    """Pictures of 1 to 4 references and up to 5 detections, no two cosines equal."""
    references, detections = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    corners = rng.random((references + detections, 2, 2))
    boxes = np.concatenate((corners.min(1), corners.max(1) + 0.05), axis=1)
    names = [str(name) for name in rng.choice(["cat", "bear", "fox"], references + detections)]
    return Picture(
        rng.uniform(-0.2, 1, (references, detections)),
        tuple(names[:references]),
        tuple(names[references:]),
        boxes[references:],
        boxes[:references],
    )


def shuffled(one, rows, columns):
    return Picture(
        one.similarity[rows][:, columns],
        tuple(one.names[i] for i in rows),
        tuple(one.detected_names[j] for j in columns),
        one.detected_boxes[columns],
        one.boxes[rows],
    )


@settings(deadline=None)
@given(pictures(), st.randoms(use_true_random=False))
def test_the_order_of_references_and_detections_changes_nothing(one, random):
    rows, columns = list(range(len(one.names))), list(range(len(one.detected_names)))
    random.shuffle(rows), random.shuffle(columns)
    before, after = measure(one, 0.3)[0].table(), measure(shuffled(one, rows, columns), 0.3)[0].table()
    assert {name: value is None for name, value in before.items()} == {
        name: value is None for name, value in after.items()
    }
    assert after == pytest.approx(before)


@settings(deadline=None)
@given(pictures(), st.integers(0, 10**6))
def test_a_further_detection_never_lowers_found(one, seed):
    rng = np.random.default_rng(seed)
    more = Picture(
        np.concatenate((one.similarity, rng.uniform(-0.2, 1, (len(one.names), 1))), axis=1),
        one.names,
        (*one.detected_names, "fox"),
        np.concatenate((one.detected_boxes, [[0.1, 0.1, 0.3, 0.4]])),
        one.boxes,
    )
    assert measure(more, 0.3)[0].found >= measure(one, 0.3)[0].found


@settings(deadline=None)
@given(pictures())
def test_a_higher_floor_never_raises_found_and_shares_are_shares(one):
    low, high = measure(one, 0.1)[0], measure(one, 0.6)[0]
    assert high.found <= low.found
    for name in ("found", "count_exact", "duplicate", "swap", "misplaced", "confusion", "in_place", "centre_inside"):
        value = getattr(low, name)
        assert value is None or 0 <= value <= 1
    assert not (low.swap and low.misplaced)


def test_an_honest_picture():
    honest = measured([[0.8, 0.3], [0.4, 0.7]])
    assert (honest.found, honest.count_exact, honest.extra, honest.fewer) == (1, 1, 0, 0)
    assert (honest.identity, honest.identity_found) == (pytest.approx(0.75), pytest.approx(0.75))
    assert (honest.swap, honest.misplaced, honest.duplicate, honest.name_swap, honest.confusion) == (0, 0, 0, 0, 0)
    assert honest.margin == pytest.approx((0.4 + 0.4) / 2)
    assert (honest.in_place, honest.centre_inside) == (pytest.approx(1), 1)


def test_swapped_identities_are_a_swap_and_not_missing():
    swapped = measured([[0.3, 0.8], [0.7, 0.4]])
    assert (swapped.swap, swapped.found, swapped.misplaced, swapped.centre_inside) == (1, 1, 0, 0)
    assert swapped.confusion == 0  # each is drawn well, only elsewhere


def test_a_swap_of_names_needs_no_boxes():
    swapped = measured([[0.3, 0.8], [0.7, 0.4]], boxes=None)
    assert (swapped.swap, swapped.misplaced, swapped.name_swap, swapped.in_place) == (None, None, 1, None)
    assert measured([[0.3, 0.8], [0.7, 0.4]], names=("cat", "cat"), boxes=None).name_swap == 0


def test_a_missing_subject_counts_zero_and_is_no_swap():
    one = measured([[0.8], [0.7]])
    assert (one.found, one.fewer, one.swap, one.misplaced, one.count_exact) == (0.5, 1, 0, 0, 0)
    assert (one.identity, one.identity_found) == (pytest.approx(0.4), pytest.approx(0.8))
    none = measured(np.zeros((2, 0)))
    assert (none.found, none.identity, none.identity_found, none.confusion, none.margin) == (0, 0, None, None, None)


def test_one_thing_for_two_references_is_a_duplicate():
    twice = measured([[0.8, 0.2, 0.1], [0.75, 0.1, 0.2]])
    assert (twice.duplicate, twice.extra, twice.found) == (1, 1, 1)
    assert measured([[0.8], [0.7]]).duplicate == 0  # there is only one thing to resemble


def test_boxes_that_get_something_else_are_misplaced_not_swapped():
    other = measured([[0.8, 0.1, 0.1], [0.1, 0.1, 0.7]], places=[LEFT, RIGHT, MIDDLE])
    assert (other.misplaced, other.swap) == (1, 0)


def test_looks_that_bleed_are_confusion():
    bled = measured([[0.5, 0.2], [0.6, 0.7]])  # the first thing resembles the second reference more, by .1
    assert bled.confusion == 0.5 and bled.margin == pytest.approx((-0.1 + 0.5) / 2)
    assert measured([[0.5, 0.2], [0.54, 0.7]]).confusion == 0  # within .05


def test_boxes_that_do_not_touch_a_detection_get_the_nearest():
    detected = np.array([(0.5, 0.5, 0.6, 0.6), (0.05, 0.05, 0.1, 0.1)])
    assert match_boxes(np.array([(0.0, 0.0, 0.04, 0.04), (0.9, 0.9, 1, 1)]), detected) == [1, 0]


def test_one_reference_has_neither_swap_nor_confusion():
    single = measured([[0.8]], names=("cat",))
    assert (single.swap, single.confusion, single.margin, single.duplicate, single.found) == (None,) * 4 + (1,)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"similarity \(2, 2\), expected \(1, 2\)"):
        measure(Picture(np.zeros((2, 2)), ("cat",), ("cat", "cat"), np.zeros((2, 4))), 0)


@pytest.mark.parametrize(
    "cosines, confidence", [((0.6, 0.3), 50), ((0.6, -0.2), 100), ((0.6,), None), ((-0.1, -0.2), 0)]
)
def test_id_conf_of_umo(cosines, confidence):
    assert id_conf_umo(cosines) == (None if confidence is None else pytest.approx(confidence))


def test_id_sim_of_umo_lets_two_references_claim_one_face():
    assert id_sim_umo(np.array([[0.8, 0.1], [0.7, 0.2]])) == pytest.approx(75)
    assert id_sim_umo(np.zeros((2, 0))) == 0


def test_multihumans_identity_counts_missing_people_as_zero():
    assert multi_id(np.array([[0.8, 0.1], [0.7, 0.2]])) == pytest.approx((0.8 + 0.2) / 2)
    assert multi_id(np.array([[0.8], [0.7]])) == pytest.approx(0.4)
    assert multi_id(np.zeros((3, 0))) == 0


def test_what_faces_need_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not_measured() == ("not measured: needs --faces and insightface and onnxruntime (pip install -e '.[faces]')")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert not_measured() == "not measured: needs --faces"
