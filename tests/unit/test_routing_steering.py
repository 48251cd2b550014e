"""The bias by its table, and its three forms, which agree."""

import math

import pytest
import torch

from core.routing.condition import Sequence
from core.routing.steering import (
    HARD,
    Bias,
    Channels,
    Groups,
    Steering,
    attend_channels,
    attend_dense,
    attend_groups,
    bias_of,
    check_regions,
)  # fmt: skip

SEQUENCE = Sequence(text=4, image=(3, 4), references=((2, 2), (1, 3), (2, 1)), others=1)
LEFT = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(3, -1)
SOFT = torch.linspace(0, 1, 12).reshape(3, 4)
IMAGE, FIRST, SECOND, THIRD = slice(4, 16), slice(17, 21), slice(21, 24), slice(24, 26)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def steering(strength=2.0, isolation=0.0, weights=(1.0, 1.0, 1.0), regions=(LEFT, SOFT, None), **fields):
    return Steering(strength, isolation, weights, regions, **fields)


def matrix(**fields):
    bias = bias_of(steering(**fields), SEQUENCE)
    return bias.dense()


def by_table(strength, isolation, weights, regions, words=((), (), ())):
    """The table of the module's docstring, entry by entry."""
    wanted = torch.zeros(SEQUENCE.size, SEQUENCE.size)
    places = (FIRST, SECOND, THIRD)
    for i, place in enumerate(places):
        wanted[:16, place] += math.log(weights[i])
        region = torch.ones(12) if regions[i] is None else regions[i].flatten()
        outside = -strength * (1 - region)
        wanted[IMAGE, place] += outside[:, None]
        wanted[place, IMAGE] += outside
        for word in words[i]:
            wanted[IMAGE, word] += outside
            wanted[word, IMAGE] += outside
        for j, other in enumerate(places):
            if i != j:
                wanted[place, other] -= isolation
                for word in words[i]:
                    wanted[word, other] -= isolation
                    wanted[other, word] -= isolation
    return wanted


@pytest.mark.parametrize("words", [(), ((1,), (2, 3), ())])
def test_the_bias_is_the_table(words):
    found = matrix(strength=2.5, isolation=1.5, weights=(0.5, 1.0, 2.0), words=words)
    wanted = by_table(2.5, 1.5, (0.5, 1.0, 2.0), (LEFT, SOFT, None), words or ((), (), ()))
    torch.testing.assert_close(found, wanted)


def test_the_picture_itself_and_plain_text_are_never_touched():
    found = matrix(strength=HARD, isolation=HARD, weights=(0.5, 1.0, 2.0), words=((1,), (), ()))
    assert found[IMAGE, IMAGE].abs().max() == 0 and found[0, :16].abs().max() == 0
    for place in (FIRST, SECOND, THIRD):
        assert found[place, place].abs().max() == 0


@pytest.mark.parametrize("fields", [
    {"strength": 0.0}, {"regions": (None, None, None)}, {"regions": (torch.ones(3, 4), None, None)},
    {"strength": HARD, "regions": (torch.full((3, 4), 0.6), None, None)},
])  # fmt: skip
def test_nothing_to_keep_apart_is_no_bias_at_all(fields):
    assert bias_of(steering(**fields), SEQUENCE) is None


def attention_of(bias):
    query, key, value = (random(2, 3, SEQUENCE.size, 8, seed=seed) for seed in range(3))
    return query, key, value, attend_dense(query, key, value, bias.dense())


@pytest.mark.parametrize("strength", [0.5, 3.0, HARD])
def test_channels_agree_with_the_matrix(strength):
    bias = bias_of(steering(strength, isolation=1.0, weights=(0.5, 1.0, 1.0), words=((1,), (), ())), SEQUENCE)
    query, key, value, wanted = attention_of(bias)
    channels = Channels.of(bias, 8, torch.float32)
    assert channels.query.shape[-1] % 8 == 0
    torch.testing.assert_close(attend_channels(query, key, value, channels), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hard_channels_survive_half_precision(dtype):
    bias = bias_of(steering(HARD, regions=(LEFT, 1 - LEFT, None)), SEQUENCE)
    channels = Channels.of(bias, 128, dtype)
    assert torch.isfinite(channels.query).all() and torch.isfinite(channels.key).all()
    products = channels.query.float() @ channels.key.float().T / math.sqrt(128)
    assert ((products == 0) == (bias.dense() == 0)).all() and products[products < 0].max() < -0.9 * HARD


def test_groups_agree_with_the_matrix():
    bias = bias_of(steering(HARD, isolation=HARD, regions=(LEFT, 1 - LEFT, None)), SEQUENCE)
    query, key, value, wanted = attention_of(bias)
    groups = Groups.of(bias)
    assert len(groups.members) <= 8
    assert torch.equal(torch.cat([rows for rows, _ in groups.members]).sort().values, torch.arange(SEQUENCE.size))
    torch.testing.assert_close(attend_groups(query, key, value, groups), wanted, atol=1e-6, rtol=1e-5)


def test_groups_are_for_hard_borders_only():
    assert Groups.of(bias_of(steering(2.0), SEQUENCE)) is None


def test_hard_steering_leaves_no_attention_outside():
    bias = bias_of(steering(HARD, regions=(LEFT, None, None)), SEQUENCE)
    query, key = random(1, 2, SEQUENCE.size, 8), random(1, 2, SEQUENCE.size, 8, seed=1)
    shares = (query @ key.transpose(-1, -2) / math.sqrt(8) + bias.dense()).softmax(-1)
    outside = (LEFT == 0).flatten()
    assert shares[:, :, IMAGE, FIRST][:, :, outside].max() == 0
    assert shares[:, :, FIRST, IMAGE][..., outside].max() == 0
    assert shares[:, :, IMAGE, FIRST][:, :, ~outside].min() > 0


def test_a_soft_border_costs_the_strength_in_nats():
    bias = bias_of(steering(3.0, regions=(LEFT, None, None)), SEQUENCE).dense()
    assert bias[4 + 3, 17] == -3.0 and bias[4, 17] == 0


def test_a_weight_multiplies_the_shares_before_they_are_normalised():
    bias = bias_of(steering(0.0, weights=(0.25, 1.0, 1.0)), SEQUENCE)
    logits = random(SEQUENCE.size, SEQUENCE.size)
    plain, weighted = logits.exp(), (logits + bias.dense()).exp()
    torch.testing.assert_close(weighted[:16, FIRST], 0.25 * plain[:16, FIRST])
    torch.testing.assert_close(weighted[17:], plain[17:])


def test_swapping_references_swaps_the_bias():
    small = Sequence(4, (3, 4), ((2, 2), (2, 2)))
    one = bias_of(Steering(2.0, 1.0, (1.0, 0.5), (LEFT, SOFT)), small).dense()
    two = bias_of(Steering(2.0, 1.0, (0.5, 1.0), (SOFT, LEFT)), small).dense()
    order = [*range(16), *range(20, 24), *range(16, 20)]
    assert torch.equal(one[order][:, order], two)


def test_rows_of_the_matrix_are_aligned_for_fused_kernels():
    assert Bias(torch.ones(1, 13), torch.ones(1, 13)).dense().stride() == (16, 1)


def test_regions_on_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"region on the token grid: expected shape \(h, w\) with h = 3, w = 4, got"):
        check_regions(steering(regions=(torch.ones(4, 3), None, None)), SEQUENCE)
    with pytest.raises(ValueError, match="a weight and a region for each of 3 references, got 1 and 3"):
        check_regions(steering(weights=(1.0,)), SEQUENCE)
