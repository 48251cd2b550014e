"""Equations 3, 4 and 5 by hand."""

import math

import pytest
import torch

from core.routing.losses import placeholder_loss, routing_loss, total_loss


def test_equation_3_by_hand():
    """Two layers, two references, a 1 x 2 grid."""
    targets = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    first = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]]]])  # squares: 4 and 0
    second = torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]])  # squares: 1 and 4 + 1
    literal = (4 + 0 + 1 + 5) / (2 * 2)
    assert routing_loss([first, second], targets).tolist() == [literal / 2]  # mean over two tokens


def test_equation_3_is_0_at_its_aim_and_pulls_towards_it():
    targets = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    maps = torch.zeros(1, 1, 1, 4, requires_grad=True)
    assert routing_loss([targets], targets).item() == 0
    routing_loss([maps], targets).backward()
    assert maps.grad.flatten().tolist() == [-0.5, 0.0, 0.0, 0.0]


def test_each_picture_of_a_batch_has_its_own_loss():
    targets = torch.zeros(2, 1, 2, 2)
    maps = torch.stack((torch.zeros(1, 2, 2), torch.full((1, 2, 2), 2.0)))
    assert routing_loss([maps], targets).tolist() == [0.0, 4.0]


def test_equation_4_by_hand():
    """One head of width 1, two references of one and two tokens: shares are sigmoids of the difference of the keys."""
    words = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1)
    query = torch.tensor([0.0, math.log(3), -math.log(3)]).reshape(1, 1, 3, 1)
    found = placeholder_loss(query, words, torch.tensor([0, 1, 1]))
    # shares of word 1: 1/2, 3/4, 1/4; squared distances: 2 (1/2)^2, then 2 (3/4)^2 and 2 (1/4)^2
    by_hand = (0.5 + (2 * 9 / 16 + 2 / 16) / 2) / 2
    torch.testing.assert_close(found, torch.tensor([by_hand]))


def test_equation_4_of_one_reference_is_0():
    assert placeholder_loss(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 1, 4), torch.zeros(5).long()).item() == 0


def test_equation_5():
    one = torch.tensor([1.0])
    assert total_loss(one, 2 * one, 3 * one, 1.0, 0.5, 2.0).item() == 1 + 1 + 6
    assert total_loss(one, 2 * one, None).item() == 3


def test_faults_are_named():
    with pytest.raises(ValueError, match="at least one layer"):
        routing_loss([], torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="routing map: expected shape"):
        routing_loss([torch.zeros(1, 1, 2, 3)], torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="placeholder keys: expected shape"):
        placeholder_loss(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 5), torch.zeros(3).long())
