"""Which rows of a model call are positive and what they show, from a guider's lists alone."""

from types import SimpleNamespace

import pytest
import torch

FIRST, SECOND, NEGATIVE, SHARED = ({"uuid": name} for name in ("first", "second", "negative", "shared"))


@pytest.fixture(scope="module")
def calls(pack):
    return pack.module("nodes.host_comfy.model_calls")


@pytest.fixture(scope="module")
def tiles(pack):
    return pack.module("nodes.host_comfy.tiles")


@pytest.fixture(scope="module")
def box(pack):
    return pack.module("core.scene").Box


@pytest.fixture
def groups():
    return {"negative": [NEGATIVE, SHARED, {}], "positive": [FIRST, SECOND], "positive_2": [SHARED], "empty": None}


@pytest.fixture
def conditionings(calls, groups):
    return calls.Conditionings(SimpleNamespace(conds=groups), (8, 12))


def test_the_positive_ones_and_the_ids_of_a_group(calls, conditionings):
    assert conditionings.positive() == [FIRST, SECOND, SHARED]
    assert conditionings.uuids("negative") == {"negative", "shared"} and conditionings.uuids("empty") == set()
    assert calls.Conditionings(SimpleNamespace(), (8, 12)).positive() == []


def test_outside_of_a_prediction_the_id_decides_and_the_place_where_there_is_none(calls, conditionings):
    assert conditionings.is_positive("second", 1) and not conditionings.is_positive("negative", 0)
    assert conditionings.is_positive(None, 0) and not conditionings.is_positive(None, 1)
    unknown = calls.Conditionings(SimpleNamespace(conds={"mine": [FIRST]}), (8, 12))
    assert unknown.is_positive("first", 0) and not unknown.is_positive("first", 1)


def test_in_a_prediction_the_list_decides(conditionings, groups):
    lists = [groups["negative"], [dict(each) for each in groups["positive"]], [SECOND], [SHARED], [{"uuid": "x"}], None]
    with conditionings.predicting(lists):
        found = [conditionings.group(place) for place in range(7)]
        assert found == ["negative", "positive", "positive", "positive_2", "", "", None]
        # a copy on the other side of a positive one with an area
        assert not conditionings.is_positive("first", 0) and conditionings.is_positive("first", 1)
        with conditionings.predicting([[SECOND]]):
            assert conditionings.group(0) == "positive" and conditionings.group(1) is None
        assert conditionings.group(0) == "negative"
    assert conditionings.group(0) is None


def test_a_part_of_the_positive_list_is_positive_unless_the_other_side_has_all_of_it(calls):
    guider = SimpleNamespace(conds={"positive": [FIRST, SHARED, SECOND], "negative": [SHARED, NEGATIVE]})
    conditionings = calls.Conditionings(guider, (8, 12))
    lists = [[FIRST, SHARED], [SHARED], [FIRST, NEGATIVE], []]
    with conditionings.predicting(lists):
        assert [conditionings.group(place) for place in range(4)] == ["positive", "", "", ""]


def test_the_window_of_an_area_ends_with_the_picture(calls, box):
    areas = {"corner": (4, 6, 2, 9), "inside": (4, 3, 2, 6), "video": (1, 4, 6, 0, 2, 3)}
    conds = [{"uuid": name, "area": area} for name, area in areas.items()] + [FIRST]
    conditionings = calls.Conditionings(SimpleNamespace(conds={"positive": conds}), (8, 12))
    for _ in range(2):  # remembered
        assert conditionings.window("corner") == box(0.75, 0.25, 1, 0.75)
        assert conditionings.window("inside") == box(0.5, 0.25, 0.75, 0.75)
        assert conditionings.window("video") == conditionings.window("first") == conditionings.window("nobody")
        assert conditionings.window("first") == box(0, 0, 1, 1)


def test_rows_that_follow_each_other_are_a_slice(calls, box):
    def where(*rows):
        return calls.Rows(rows, None, box(0, 0, 1, 1), rows).where

    assert where(2, 3, 4) == slice(2, 5) and where(1) == slice(1, 2) and where(1, 3) == [1, 3] and where(3, 2) == [3, 2]


def test_a_plain_call_has_a_chunk_of_rows_for_each_conditioning(calls, conditionings, box):
    options = {"cond_or_uncond": [1, 0, 0], "uuids": ["negative", "first", "second"]}
    call = calls.plain_call(options, 6, conditionings)
    assert call.batch == 6
    assert [(rows.rows, rows.uuid, rows.pictures) for rows in call.positive] == [
        ((2, 3), "first", (0, 1)), ((4, 5), "second", (0, 1)),
    ]  # fmt: skip
    (rows,) = calls.plain_call({"cond_or_uncond": [1, 0]}, 4).positive
    assert (rows.rows, rows.uuid, rows.window, rows.pictures) == ((2, 3), 1, box(0, 0, 1, 1), (0, 1))
    assert calls.plain_call({}, 3).positive[0].rows == (0, 1, 2)


def test_a_row_is_looked_for_in_every_picture(tiles, box):
    picture = torch.arange(48.0).reshape(2, 1, 4, 6)
    assert tiles._locate(picture[1, :, 1:3, 2:5], picture) == (1, box(2 / 6, 0.25, 5 / 6, 0.75))
    assert tiles._locate(picture[0].half(), picture) == (0, box(0, 0, 1, 1))
    changed = picture[1, :, 1:3, 2:5].clone()
    changed[0, 1, 2] += 1
    assert tiles._locate(changed, picture) is None
    assert tiles._locate(torch.zeros(2, 1, 1), picture) is None and tiles._locate(torch.zeros(1, 5, 1), picture) is None


def test_rows_of_one_part_are_in_the_order_of_the_conditionings(tiles, box):
    left, right = (0, box(0, 0, 0.5, 1)), (0, box(0.5, 0, 1, 1))
    assert tiles._chunks([left, right, left, right], 2) == [0, 0, 1, 1]
    assert tiles._chunks([left, left, right, right], 2) == [0, 1, 0, 1]
    assert tiles._chunks([left, left, right], 2) is None and tiles._chunks([left, None], 1) is None
