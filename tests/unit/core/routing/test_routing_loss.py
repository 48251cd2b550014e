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


def test_equation_3_is_taken_in_full_precision():
    maps, targets = torch.full((1, 1, 1, 2), 1.5).bfloat16(), torch.full((1, 1, 1, 2), 0.01).bfloat16()
    loss = routing_loss([maps], targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, (maps.float() - targets.float()).square().mean()[None])


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equation_4_token_by_token(dtype):
    """Two pictures, two heads of width 4, three references, of which the second has no token here."""
    generator = torch.Generator().manual_seed(0)
    query, words = (torch.randn(2, 2, count, 4, generator=generator).to(dtype) for count in (5, 3))
    owners = torch.tensor([0, 2, 2, 0, 0])
    expected = torch.zeros(2)
    for picture in range(2):
        for head in range(2):
            for token, owner in enumerate(owners.tolist()):
                row = query[picture, head, token].float() @ words[picture, head].float().T / 2  # sqrt(4)
                right = torch.eye(3)[owner]
                distance = (row.softmax(0) - right).square().sum()
                expected[picture] += distance / int((owners == owner).sum()) / 3 / 2  # tokens, references, heads
    found = placeholder_loss(query, words, owners)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_equation_4_of_one_reference_is_0():
    assert placeholder_loss(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 1, 4), torch.zeros(5).long()).item() == 0


def test_equation_5():
    one = torch.tensor([1.0])
    assert total_loss(2 * one, 2 * one, 3 * one, 3.0, 0.5, 2.0).item() == 6 + 1 + 6
    assert total_loss(one, 2 * one, 3 * one).item() == 6 and total_loss(one, 2 * one, None).item() == 3


def test_faults_are_named():
    with pytest.raises(ValueError, match="at least one layer"):
        routing_loss([], torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="routing map: expected shape"):
        routing_loss([torch.zeros(1, 1, 2, 3)], torch.zeros(1, 1, 2, 2))
    for shape in ((1, 1, 2, 5), (2, 1, 2, 4), (1, 2, 2, 4)):
        with pytest.raises(
            ValueError, match=r"placeholder keys: expected shape \(B, H, R, d\) with B = 1, H = 1, d = 4"
        ):
            placeholder_loss(torch.zeros(1, 1, 3, 4), torch.zeros(shape), torch.zeros(3).long())
    with pytest.raises(ValueError, match=r"owners of reference tokens: expected shape \(M\) with M = 3, got \(1,\)"):
        placeholder_loss(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 2, 4), torch.zeros(1).long())
