"""The predicate attention loss by hand and its laws (its published test vector is in recipe/test_attach_identity)."""

import pytest
import torch

from core.relation.attention_loss import predicate_attention_loss


def test_by_hand_over_two_grids():
    region = torch.zeros(1, 4, 4)
    region[0, :2, :2] = 1  # a quarter
    fine = torch.zeros(1, 4, 4)
    fine[0, :2, :2] = 0.8
    coarse = torch.tensor([[[0.2, 0.6], [0.4, 0.5]]])
    expected = ((0 - 0.8) + ((0.6 + 0.4 + 0.5) / 3 - 0.2)) / 2
    assert float(predicate_attention_loss([fine, coarse], region)) == pytest.approx(expected, abs=1e-4)


def test_pictures_are_independent_and_no_predicate_is_zero():
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(3, 8, 8, generator=generator).requires_grad_()
    region = (torch.rand(3, 16, 16, generator=generator) > 0.5).float()
    asked = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    loss = predicate_attention_loss([maps * asked], region)
    assert float(loss[1]) == 0
    grads = torch.autograd.grad(loss[0], maps)[0]
    assert grads[0].abs().sum() > 0
    assert grads[1:].abs().sum() == 0


def test_a_batch_is_its_pictures_one_by_one():
    generator = torch.Generator().manual_seed(2)
    maps = [torch.rand(3, side, side, generator=generator) for side in (8, 4)]
    region = torch.rand(3, 16, 16, generator=generator) > torch.tensor([0.2, 0.5, 0.8])[:, None, None]
    apart = [predicate_attention_loss([each[i, None] for each in maps], region[i, None].float()) for i in range(3)]
    torch.testing.assert_close(predicate_attention_loss(maps, region), torch.cat(apart))


def test_empty_and_full_regions_are_finite():
    maps = torch.full((2, 4, 4), 0.25)
    region = torch.stack((torch.zeros(4, 4), torch.ones(4, 4)))
    torch.testing.assert_close(predicate_attention_loss([maps], region), torch.tensor([0.25, -0.25]), atol=1e-5, rtol=0)


def test_nothing_to_look_at_is_refused():
    with pytest.raises(ValueError, match="at least one site"):
        predicate_attention_loss([], torch.zeros(1, 4, 4))
    with pytest.raises(
        ValueError, match=r"predicate attention map: expected shape \(B, h, w\) with B = 1, got \(2, 4, 4\)"
    ):
        predicate_attention_loss([torch.zeros(2, 4, 4)], torch.zeros(1, 4, 4))
