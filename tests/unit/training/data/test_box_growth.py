"""Boxes of subjects that touch reach on behind each other, and nothing else moves."""

import torch

from training.data.box_growth import grown

TOUCHING = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.3, 0.9, 0.9]])


def test_only_sides_inside_the_other_box_move_and_only_outward():
    guesses = torch.stack([grown(TOUCHING, 0.4, str(number)) for number in range(300)])
    moved = (guesses != TOUCHING).any(0)
    assert moved.tolist() == [[False, False, True, False], [True, True, False, False]]
    right = guesses[:, 0, 2]
    assert 0.6 <= right.min() < 0.61 and 0.79 < right.max() <= 0.6 + 0.4 * 0.5 + 1e-6
    left = guesses[:, 1, 0]
    assert 0.49 < left.max() <= 0.5 and 0.5 - 0.4 * 0.4 - 1e-6 <= left.min() < 0.35
    top = guesses[:, 1, 1]
    assert top.min() == 0.2, "at most to the other box's far side"


def test_boxes_apart_stay_and_the_words_decide():
    apart = torch.tensor([[0.0, 0.0, 0.4, 0.5], [0.4, 0.1, 0.9, 0.4], [0.1, 0.6, 0.3, 0.9]])
    assert torch.equal(grown(apart, 0.5, "seed"), apart), "an edge in common is no overlap"
    assert torch.equal(grown(apart[:1], 0.5, "seed"), apart[:1])
    assert torch.equal(grown(TOUCHING, 0.4, "a"), grown(TOUCHING, 0.4, "a"))
    assert not torch.equal(grown(TOUCHING, 0.4, "a"), grown(TOUCHING, 0.4, "b"))
    assert torch.equal(grown(TOUCHING, 0.0, "a"), TOUCHING)


def test_of_three_each_reaches_behind_those_that_it_touches():
    row = torch.tensor([[0.0, 0.0, 0.4, 1.0], [0.3, 0.0, 0.7, 1.0], [0.6, 0.0, 1.0, 1.0]])
    result = grown(row, 1.0, "seed")
    assert bool((result[:, 0] <= row[:, 0]).all() and (result[:, 2] >= row[:, 2]).all())
    assert result[0, 2] <= 0.7 and 0.0 <= result[1, 0] < 0.3 and 0.7 < result[1, 2] <= 1.0 and result[2, 0] >= 0.3
    assert torch.equal(result[:, [1, 3]], row[:, [1, 3]])
