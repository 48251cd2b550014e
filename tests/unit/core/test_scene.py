"""Boxes, layouts, subjects: the published cells, and one clear error each."""

import pytest
import torch

from core.scene import Box, Layout, Scene, Subject

TWO = (Box(0, 0.2, 0.55, 0.85), Box(0.55, 0.26, 0.95, 0.90))
THREE = (Box(0, 0.2, 0.45, 0.85), Box(0.45, 0.2, 0.7, 0.85), Box(0.55, 0.25, 0.95, 0.9))


def rectangle(coverage):
    """(column from, row from, column to, row to), ends exclusive; all of it covered."""
    rows, columns = coverage.nonzero().unbind(dim=1)
    left, top, right, bottom = (int(x) for x in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    assert coverage[top:bottom, left:right].all()
    return left, top, right, bottom


@pytest.mark.parametrize(
    ("boxes", "side", "cells", "areas", "uncovered"),
    [
        (TWO, 64, [(0, 12, 36, 55), (35, 16, 61, 58)], [1548, 1092], 1495),
        (TWO, 32, [(0, 6, 18, 28), (17, 8, 31, 29)], [396, 294], 354),
        (THREE, 64, [(0, 12, 29, 55), (28, 12, 45, 55), (35, 16, 61, 58)], [1247, 731, 1092], 1459),
        (THREE, 32, [(0, 6, 15, 28), (14, 6, 23, 28), (17, 8, 31, 29)], [330, 198, 294], 344),
    ],
)
def test_cells_are_the_published_ones(boxes, side, cells, areas, uncovered):
    coverage = Layout(boxes).coverage(side, side)
    assert [rectangle(part) for part in coverage] == cells
    assert coverage.sum(dim=(1, 2)).tolist() == areas
    assert int((~coverage.any(dim=0)).sum()) == uncovered


def test_cells_on_a_grid_of_another_shape():
    assert rectangle(Layout((Box(0.25, 0.5, 0.5, 1),)).coverage(6, 10)[0]) == (2, 3, 5, 6)


def test_an_edge_on_a_cell_border_stays_there():
    # 0.15 * 20 is 3.0000000000000004 in binary: it must not take a fourth cell
    assert rectangle(Layout((Box(0, 0, 0.15, 0.15),)).coverage(20, 20)[0]) == (0, 0, 3, 3)


def test_every_box_covers_at_least_one_cell():
    assert Layout((Box(0.5, 0.5, 0.501, 0.501),)).coverage(4, 4).sum() == 1


def test_cells_at_a_boxs_edges_count_by_their_share():
    shares = Box(0.125, 0, 0.5, 0.75).cell_shares(2, 4)
    assert shares.tolist() == [[0.5, 1.0, 0.0, 0.0], [0.25, 0.5, 0.0, 0.0]]
    assert Box(0.25, 0.25, 0.375, 0.5).cell_shares(1, 1).item() == 0.125 * 0.25  # of a cell larger than the box


def test_a_window_shows_its_part_of_a_box():
    layout = Layout((Box(0.25, 0, 0.75, 1), Box(0, 0, 0.4, 1)))
    coverage = layout.coverage(4, 8, window=Box(0.5, 0.5, 1, 1))
    assert rectangle(coverage[0]) == (0, 0, 4, 4)
    assert not coverage[1].any()


@pytest.mark.parametrize(("box", "window", "seen"), [
    (Box(0.25, 0.25, 0.75, 0.75), Box(0, 0, 0.5, 0.5), Box(0.5, 0.5, 1, 1)),
    (Box(0.25, 0.25, 0.75, 0.75), Box(0.5, 0.5, 1, 1), Box(0, 0, 0.5, 0.5)),
    (Box(0, 0.25, 1, 0.5), Box(0.25, 0, 0.75, 1), Box(0, 0.25, 1, 0.5)),
    (Box(0, 0, 1, 0.5), Box(0, 0.5, 1, 1), None), (Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), None),  # edge to edge
    (Box(0, 0, 1, 0.2), Box(0, 0.5, 1, 1), None), (Box(0, 0, 0.2, 1), Box(0.5, 0, 1, 1), None),
], ids=str)  # fmt: skip
def test_a_box_is_seen_in_fractions_of_the_window(box, window, seen):
    assert box.seen_through(window) == seen


def test_whole_numbers_make_tensors_of_fractions():
    assert Box(0, 0, 1, 1).tensor().dtype == torch.float32
    assert Scene((Subject("fox", picture(), weight=2),)).weights().dtype == torch.float32


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ((0, 0, 1.3, 1), "x1 = 1.3, expected 0 to 1"),
        ((-0.1, 0, 1, 1), "x0 = -0.1, expected 0 to 1"),
        ((0.8, 0, 0.2, 1), "x0 = 0.8 is not less than x1 = 0.2"),
        ((0, 0.5, 1, 0.5), "y0 = 0.5 is not less than y1 = 0.5"),
        ((float("nan"), 0, 1, 1), "x0 = nan, expected 0 to 1"),
        ((0, 0, float("inf"), 1), "x1 = inf, expected 0 to 1"),
    ],
)
def test_a_bad_box_says_what_is_wrong(edges, message):
    with pytest.raises(ValueError, match=message):
        Box(*edges)


def test_all_faults_of_a_box_come_at_once():
    with pytest.raises(ValueError, match="x1 = 2.*y0 = 0.9 is not less than y1 = 0.1"):
        Box(0, 0.9, 2, 0.1)


def picture(value=0.5, views=1):
    return torch.full((views, 3, 4, 6), value)


def spotted(tensor, value):
    """One number of it replaced."""
    tensor.view(-1)[7] = value
    return tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "  "}, "name: expected the words that name it in the prompt, got nothing"),
        ({"photographs": picture(float("nan"))}, "image: expected numbers in .0, 1., got NaN"),
        ({"photographs": torch.zeros(0, 3, 4, 6)}, "image: expected at least one RGB picture, got shape .0, 3, 4, 6."),
        ({"photographs": torch.zeros(1, 1, 4, 6)}, "image: expected at least one RGB picture"),
        ({"mask": torch.zeros(1, 4, 6)}, "mask: expected some of the picture to be the subject"),
        ({"mask": torch.ones(1, 5, 6)}, r"mask: expected the picture's size \(1, 4, 6\), got \(1, 5, 6\)"),
        ({"photographs": torch.zeros(1, 3, 4)}, "image: expected at least one RGB picture, got shape .1, 3, 4."),
        ({"photographs": torch.zeros(3, 4, 6), "mask": torch.ones(1, 4, 6)}, "image: .*; mask: expected the picture's"),
        ({"photographs": spotted(picture(), float("nan"))}, "image: expected numbers in .0, 1., got NaN"),
        ({"mask": spotted(torch.ones(1, 4, 6), float("nan"))}, "mask: expected numbers in .0, 1., got NaN"),
        ({"mask": torch.full((1, 4, 6), 0.5)}, "mask: expected some of the picture to be the subject"),
        (
            {"photographs": picture(views=2), "mask": torch.stack((torch.ones(4, 6), torch.zeros(4, 6)))},
            "mask: expected some of the picture to be the subject",
        ),
        ({"weight": float("inf")}, "weight: expected a number, got inf"),
    ],
)
def test_a_bad_subject_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        Subject(**{"name": "fox", "photographs": picture()} | changes)


def test_a_faint_mask_is_a_mask():
    assert Subject("fox", picture(), mask=torch.full((1, 4, 6), 0.6)).mask is not None


def test_a_scene_grows_without_changing():
    one = Scene().with_subject(Subject("fox", picture(), TWO[0], 0.5))
    two = one.with_subject(Subject("bear", picture(views=3), TWO[1]))
    assert len(one.subjects) == 1
    assert two.layout.boxes == TWO
    assert two.weights().tolist() == [0.5, 1.0]
