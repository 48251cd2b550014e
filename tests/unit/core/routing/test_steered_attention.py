"""Steered attention is attention with the bias of the table, however few of its rows and columns are written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from core.routing.call_layout import CallLayout, span_mask
from core.routing.lse_attention import _chunked, attend_with_lse, prepare
from core.routing.reference_bias import HARD, Steering, check_regions
from core.routing.reference_regions import ReferenceRegions, attend_plain
from core.routing.steered_attention import steered_attention

LEFT = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(3, -1)
SOFT = torch.linspace(0, 1, 12).reshape(3, 4)
# text 0-3 with copies, picture, another node's reference, three references
TEXT_FIRST = CallLayout(26, (3, 4), (4, 16), ((0, 4),), (((17, 21),), ((21, 24),), ((24, 26),)))
# OmniGen2's order, the text's copies of references in the middle of it
TEXT_LAST = CallLayout(
    30, (3, 4), (9, 21), ((21, 30),), (((0, 4),), ((4, 7),), ((7, 9),)), (((22, 24),), ((25, 26),), ((27, 29),))
)
ALONE = CallLayout(9, (3, 4), None, (), (((0, 4),), ((4, 7),), ((7, 9),)))
LAYOUTS = {"text first": TEXT_FIRST, "text last": TEXT_LAST, "references alone": ALONE}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def steering(strength=2.0, isolation=0.0, weights=(1.0, 1.0, 1.0), regions=(LEFT, SOFT, None), **fields):
    return Steering(strength, isolation, weights, regions, **fields)


def by_table(layout, strength, isolation, weights, regions, pictures):
    """The table of `reference_bias`, entry by entry."""
    wanted = torch.zeros(layout.size, layout.size)
    at = [span_mask(layout.size, spans) for spans in layout.references]
    copies = [span_mask(layout.size, spans) for spans in layout.all_copies]
    text = span_mask(layout.size, layout.text)
    image = span_mask(layout.size, () if layout.image is None else (layout.image,))
    for i, own in enumerate(at):
        region = torch.ones(12) if regions[i] is None else regions[i].flatten()
        outside = -strength * (1 - region)[:, None] if layout.image else torch.zeros(0, 1)
        for part in (own, copies[i]):
            wanted[image[:, None] & part] += outside.expand(-1, int(part.sum())).flatten()
            wanted[part[:, None] & image] += outside.T.expand(int(part.sum()), -1).flatten()
        weighted = own | copies[i] if pictures else own
        own_copy = copies[i][:, None] & (copies[i] if pictures else torch.zeros_like(own))
        wanted[(image | text)[:, None] & weighted & ~own_copy] += math.log(weights[i])
        for j, other in enumerate(at):
            if i != j:
                wanted[own[:, None] & other] -= isolation
                wanted[copies[i][:, None] & other] -= isolation
                wanted[own[:, None] & copies[j]] -= isolation
                if pictures:
                    wanted[copies[i][:, None] & copies[j]] -= isolation
    return wanted


def inputs(layout, kv_heads=4):
    """Queries, keys and values of a batch of two, four heads of 8 channels."""
    sides = (random(2, kv_heads, layout.size, 8, seed=seed) for seed in (1, 2))
    return random(2, 4, layout.size, 8), *sides


def dense(query, key, value, bias):
    key, value = (side.repeat_interleave(query.shape[1] // side.shape[1], dim=1) for side in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize(("strength", "isolation"), [(2.5, 1.5), (0.0, 2.0), (3.0, HARD), (1.0, 0.0)])
def test_it_is_attention_with_the_table(name, pictures, strength, isolation):
    layout, weights, regions = LAYOUTS[name], (0.5, 1.0, 2.0), (LEFT, SOFT, None)
    made = steered_attention(
        steering(strength, isolation, weights, copies_are_pictures=pictures),
        layout,
        (0, layout.size),
        torch.device("cpu"),
    )
    bias = by_table(layout, strength, isolation, weights, regions, pictures)
    if made is None:
        assert bias.abs().max() == 0
        return
    for kv_heads in (4, 2):
        found, shares = made(*inputs(layout, kv_heads=kv_heads), attend_plain)
        torch.testing.assert_close(found, dense(*inputs(layout, kv_heads=kv_heads), bias), atol=2e-6, rtol=1e-5)
    assert (shares is None) == (layout.image is None)


@pytest.mark.parametrize("regions", [(LEFT, 1 - LEFT, None), (LEFT, SOFT, torch.ones(3, 4))])
def test_a_closed_border_is_the_table_with_hard_numbers(regions):
    made = steered_attention(steering(HARD, HARD, regions=regions), TEXT_LAST, (0, 30), torch.device("cpu"))
    hard = tuple(None if region is None else (region >= 0.5).float() for region in regions)
    bias = by_table(TEXT_LAST, HARD, HARD, (1.0, 1.0, 1.0), hard, False)
    found, _ = made(*inputs(TEXT_LAST), attend_plain)
    torch.testing.assert_close(found, dense(*inputs(TEXT_LAST), bias), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("strength", [2.0, HARD])
def test_another_nodes_mask_is_added(strength):
    layout, regions = TEXT_FIRST, (LEFT, SOFT.round(), None)
    query, key, value = inputs(layout)
    made = steered_attention(steering(strength, 1.0, regions=regions), layout, (0, layout.size), torch.device("cpu"))
    bias = by_table(layout, strength, 1.0, (1.0, 1.0, 1.0), regions, False)
    closed = torch.zeros(2, 1, 1, layout.size)
    closed[1, ..., 17:21] = float("-inf")  # a whole block, in one picture of the batch
    matrix, of_queries, of_keys = (random(*shape) for shape in ((layout.size,) * 2, (layout.size, 1), (1, layout.size)))
    for mask in (matrix, random(2, layout.size, layout.size), closed, of_queries, of_keys):
        four = mask[:, None] if mask.ndim == 3 else mask
        found, shares = made(query, key, value, attend_plain, mask)
        torch.testing.assert_close(found, dense(query, key, value, bias + four), atol=2e-6, rtol=1e-5)
        assert torch.isfinite(shares).all()


@pytest.mark.parametrize("fields", [
    steering(3.0, 1.0, (0.5, 1.0, 1.0)), steering(3.0, 0.0), steering(HARD, 0.0),  # of the latter the picture alone
], ids=["weights", "regions alone", "a closed border alone"])  # fmt: skip
def test_queries_without_the_references(fields):
    """A cache keeps keys and values of references, and asks for text and picture only."""
    layout = CallLayout(25, (3, 4), (4, 16), ((0, 4),), (((16, 20),), ((20, 23),), ((23, 25),)))
    query, key, value = inputs(layout)
    whole, _ = steered_attention(fields, layout, (0, 25), torch.device("cpu"))(query, key, value, attend_plain)
    part, _ = steered_attention(fields, layout, (0, 16), torch.device("cpu"))(
        query[:, :, :16], key, value, attend_plain
    )
    torch.testing.assert_close(part, whole[:, :, :16])


def test_queries_that_do_not_begin_with_the_first_key():
    """References stand first here, and only what follows them has queries."""
    query, key, value = inputs(TEXT_LAST)
    fields, size = steering(3.0, 1.0, (0.5, 1.0, 1.0)), TEXT_LAST.size
    whole, shares = steered_attention(fields, TEXT_LAST, (0, size), torch.device("cpu"))(
        query, key, value, attend_plain
    )
    made = steered_attention(fields, TEXT_LAST, (9, size), torch.device("cpu"))
    part, of_part = made(query[:, :, 9:], key, value, attend_plain)
    torch.testing.assert_close(part, whole[:, :, 9:])
    torch.testing.assert_close(of_part, shares)


@pytest.mark.parametrize("strength", [2.0, HARD])
def test_attention_of_half_precision_stays_so(strength):
    fields = steering(strength, 1.0, (0.5, 1.0, 1.0))
    made = steered_attention(fields, TEXT_FIRST, (0, TEXT_FIRST.size), torch.device("cpu"))
    sides = [side.bfloat16() for side in inputs(TEXT_FIRST)]
    found, shares = made(*sides, attend_plain)
    wanted, right = made(*(side.float() for side in sides), attend_plain)
    assert found.dtype == torch.bfloat16 and shares.dtype == torch.float32
    torch.testing.assert_close(found.float(), wanted, atol=3e-2, rtol=3e-2)
    torch.testing.assert_close(shares, right, atol=1e-2, rtol=3e-2)


def test_shares_are_the_softmax_over_all_keys():
    layout = TEXT_FIRST
    query, key, value = inputs(layout)
    fields = steering(2.0, 1.0, (0.5, 1.0, 2.0))
    _, shares = steered_attention(fields, layout, (0, 26), torch.device("cpu"))(query, key, value, attend_plain)
    bias = by_table(layout, 2.0, 1.0, (0.5, 1.0, 2.0), (LEFT, SOFT, None), False)
    full = (query @ key.transpose(-1, -2) / math.sqrt(8) + bias).softmax(-1)[:, :, 4:16]
    wanted = torch.stack([full[..., start:stop].sum(-1).mean(1) for ((start, stop),) in layout.references], dim=1)
    torch.testing.assert_close(shares, wanted)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_reference_of_weight_0_is_read_by_nobody_else(layout):
    """Exactly: its keys and values may be anything."""
    made = steered_attention(
        steering(0.0, weights=(1.0, 0.0, 1.0), copies_are_pictures=True), layout, (0, layout.size), torch.device("cpu")
    )
    query, key, value = inputs(layout)
    second = span_mask(layout.size, layout.own[1])
    other_key, other_value = key.clone(), value.clone()
    other_key[:, :, second], other_value[:, :, second] = 50.0, -90.0
    found, other = (made(query, *sides, attend_plain)[0] for sides in ((key, value), (other_key, other_value)))
    assert torch.equal(found[:, :, ~second], other[:, :, ~second]) and not torch.equal(found, other)


@pytest.mark.parametrize("pictures", [True, False])
def test_a_reference_of_weight_0_goes_on_reading_itself(pictures):
    """Its latents and its copies in the text read each other, also where nobody else reads either."""
    fields = steering(0.0, weights=(1.0, 0.0, 1.0), copies_are_pictures=pictures)
    made = steered_attention(fields, TEXT_LAST, (0, TEXT_LAST.size), torch.device("cpu"))
    query, key, value = inputs(TEXT_LAST)
    found = made(query, key, value, attend_plain)[0]
    latents, copies = (span_mask(TEXT_LAST.size, side[1]) for side in (TEXT_LAST.references, TEXT_LAST.copies))
    for changed, reader in ((latents, copies), (copies, latents)):
        other = value.clone()
        other[:, :, changed] = -90.0
        assert not torch.isclose(made(query, key, other, attend_plain)[0], found)[:, :, reader].any()


def test_the_placeholder_of_a_reference_of_weight_0_is_read_as_a_word():
    fields = steering(0.0, weights=(1.0, 0.0, 1.0), copies_are_pictures=False)
    made = steered_attention(fields, TEXT_LAST, (0, TEXT_LAST.size), torch.device("cpu"))
    query, key, value = inputs(TEXT_LAST)
    other = value.clone()
    other[:, :, 25] = -90.0
    assert not torch.isclose(made(query, key, other, attend_plain)[0], made(query, key, value, attend_plain)[0]).any()


def test_a_closed_border_is_exact():
    made = steered_attention(steering(HARD, regions=(LEFT, 1 - LEFT, None)), TEXT_FIRST, (0, 26), torch.device("cpu"))
    query, key, value = inputs(TEXT_FIRST)
    other = value.clone()
    other[:, :, 17:21] = 1000.0
    moved = (made(query, key, value, attend_plain)[0] != made(query, key, other, attend_plain)[0]).any(-1).any(1)[0]
    assert torch.equal(moved[4:16].reshape(3, 4), LEFT.bool())


@pytest.mark.parametrize("fields", [
    {"strength": 0.0}, {"regions": (None, None, None)}, {"regions": (torch.ones(3, 4), None, None)},
    {"strength": HARD, "regions": (torch.full((3, 4), 0.6), None, None)},
])  # fmt: skip
def test_nothing_to_keep_apart_is_plain_attention(fields):
    assert steered_attention(steering(**fields), TEXT_FIRST, (0, 26), torch.device("cpu")) is None


def test_the_users_backend_runs_all_but_the_picture_and_what_is_biased():
    """It may drop masks without a word, so it gets none of ours."""
    calls = []

    def backend(query, key, value, mask):
        calls.append((query.shape[2], key.shape[2], mask is not None))
        return attend_plain(query, key, value, mask)

    layout = CallLayout(23, (3, 4), (4, 16), ((0, 4),), (((16, 20),), ((20, 23),)))
    query, key, value = inputs(layout)
    soft = Steering(2.0, 0.0, (1.0, 1.0), (LEFT, 1 - LEFT))
    steered_attention(soft, layout, (0, 23), torch.device("cpu"))(query, key, value, backend)
    assert calls == [(4, 23, False)]
    calls.clear()
    hard = Steering(HARD, 0.0, (1.0, 1.0), (LEFT, 1 - LEFT))
    steered_attention(hard, layout, (0, 23), torch.device("cpu"))(query, key, value, backend)
    assert sorted(calls) == [(3, 17, False), (4, 17, False), (4, 23, False)]  # closed keys are left out: no mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [None, random(1, 1, 9, 20), random(1, 1, 1, 20)], ids=["none", "matrix", "row"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_log_sum_exp_of_fused_kernels(dtype, mask, kv_heads):
    prepare("cpu")
    query = random(2, 4, 9, 16).to(dtype)
    key, value = random(2, kv_heads, 20, 16, seed=1).to(dtype), random(2, kv_heads, 20, 16, seed=2).to(dtype)
    mask = None if mask is None else mask.to(dtype)
    wide = [side.repeat_interleave(4 // kv_heads, dim=1).float() for side in (key, value)]
    wanted = _chunked(query.float(), *wide, None if mask is None else mask.float(), 0.25)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for found, right in zip(attend_with_lse(query, key, value, mask), wanted):
        torch.testing.assert_close(found.float(), right, atol=tolerance, rtol=tolerance)


def test_a_query_without_an_open_key_gets_nothing_and_a_scale_is_taken():
    prepare("cpu")
    query, key, value = random(2, 2, 5, 16), random(2, 2, 7, 16, seed=1), random(2, 2, 7, 16, seed=2)
    mask = random(1, 1, 5, 7, seed=3)
    mask[..., 3, :], mask[..., 4, :5] = float("-inf"), float("-inf")
    out, lse = attend_with_lse(query, key, value, mask, 0.3)
    logits = query @ key.mT * 0.3 + mask
    torch.testing.assert_close(out, logits.softmax(dim=-1).nan_to_num(0) @ value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, logits.logsumexp(dim=-1), atol=1e-5, rtol=1e-5)
    assert (out[:, :, 3] == 0).all() and (lse[:, :, 3] == float("-inf")).all()
    plain, _ = attend_with_lse(query, key, value, None, 0.3)
    wanted = F.scaled_dot_product_attention(query, key, value, scale=0.3)
    torch.testing.assert_close(plain, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_of_the_cpu_is_used(masked):
    """Chunks give the same numbers, so nothing else would tell that it was refused."""
    from core.routing import lse_attention

    if not hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        pytest.skip("this torch has no such kernel")
    assert lse_attention._find_kernel("cpu", torch.float32, masked) is lse_attention._cpu


def test_a_device_without_kernels_attends_in_chunks(monkeypatch):
    from core.routing import lse_attention

    monkeypatch.setattr(lse_attention, "CANDIDATES", {})
    monkeypatch.setattr(lse_attention, "_KERNELS", {})
    monkeypatch.setattr(lse_attention, "CHUNK", 4)
    layout = TEXT_FIRST
    made = steered_attention(steering(2.0), layout, (0, 26), torch.device("cpu"))
    assert set(lse_attention._KERNELS.values()) == {_chunked}
    bias = by_table(layout, 2.0, 0.0, (1.0, 1.0, 1.0), (LEFT, SOFT, None), False)
    found, _ = made(*inputs(layout), attend_plain)
    torch.testing.assert_close(found, dense(*inputs(layout), bias), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 10], ids=["one row for all queries", "a row for each query"])
def test_chunks_take_their_rows_of_a_mask(monkeypatch, rows):
    from core.routing import lse_attention

    monkeypatch.setattr(lse_attention, "CHUNK", 4)
    query, key, value, mask = random(1, 2, 10, 8), random(1, 2, 6, 8), random(1, 2, 6, 8, seed=1), random(1, 1, rows, 6)
    found, lse = _chunked(query, key, value, mask, 0.3)
    wanted = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    logits = query @ key.transpose(-1, -2) * 0.3 + mask
    torch.testing.assert_close(lse, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)


def test_all_it_holds_is_on_the_device_of_the_queries():
    made = steered_attention(steering(HARD, 1.0, (0.5, 1.0, 1.0)), TEXT_LAST, (0, TEXT_LAST.size), torch.device("meta"))
    held = [made.picture, made.base, *(each for part in (*made.shared, *made.blocks) for each in vars(part).values())]
    tensors = [each for each in held if isinstance(each, torch.Tensor)]
    assert len(tensors) > 8 and {each.device.type for each in tensors} == {"meta"}
    assert isinstance(made.base, torch.Tensor) and made.blocks[0].rows is not None


def test_a_hard_border_runs_where_a_soft_region_is_half():
    region = torch.tensor([[0.49, 0.5, 0.51, 1.0]]).expand(3, -1)
    outside = steering(HARD, regions=(region, None, None)).outside(0).reshape(3, 4)
    assert (outside[:, 0] <= -HARD).all() and (outside[:, 1:] == 0).all()


def test_kernels_that_raise_or_give_other_numbers_are_not_used(caplog):
    def fails(*_):
        raise NotImplementedError("no such kernel")

    def wrong(query, key, value, mask, scale):
        return value, torch.zeros(query.shape[:3])

    from core.routing import lse_attention

    before = lse_attention.CANDIDATES["cpu"]

    def half_wrong(query, key, value, mask, scale):
        out, lse = _chunked(query, key, value, mask, scale)
        return out, lse + 1

    lse_attention.CANDIDATES["cpu"] = (fails, wrong, half_wrong, *before)
    try:
        assert lse_attention._find_kernel("cpu", torch.float32, False) is before[0]
    finally:
        lse_attention.CANDIDATES["cpu"] = before
    assert "torch's kernel wrong gives other numbers" in caplog.text


def test_a_device_without_kernels_is_asked_for_no_dtype(monkeypatch):
    """Some Macs and DirectML have no bfloat16; a model in float32 steers there all the same."""
    from core.routing import lse_attention

    def refuse(*_, **__):
        raise TypeError("BFloat16 is not supported on MPS")

    monkeypatch.setattr(lse_attention, "_KERNELS", {})
    monkeypatch.setattr(torch, "randn", refuse)
    prepare("mps")
    assert set(lse_attention._KERNELS.values()) == {_chunked}


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return out


@pytest.mark.parametrize("strength", [2.0, HARD])
def test_no_matrix_of_the_picture_by_the_picture(strength):
    """1024 picture tokens and 512 of references in one head of 8: nothing is larger than queries and keys."""
    layout = CallLayout(1544, (32, 32), (8, 1032), ((0, 8),), (((1032, 1288),), ((1288, 1544),)))
    left = torch.zeros(32, 32)
    left[:, :16] = 1.0
    query, key, value = (random(1, 1, 1544, 8, seed=seed) for seed in range(3))
    with Largest() as made_and_run:
        made = steered_attention(
            Steering(strength, strength, (0.5, 1.0), (left, 1 - left)), layout, (0, 1544), torch.device("cpu")
        )
        made(query, key, value, attend_plain)
    assert made_and_run.numbers <= 4 * query.numel() < 1024 * 1024


def test_regions_in_a_video_are_the_same_in_each_frame():
    layout = CallLayout(26, (3, 2), (2, 14), ((0, 2),), (((14, 20),), ((20, 26),)), frames=2)
    region = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    made = steered_attention(Steering(HARD, 0.0, (1.0, 1.0), (region, None)), layout, (0, 26), torch.device("cpu"))
    _, shares = made(*inputs(layout), attend_plain)
    frames = shares[0, 0].reshape(2, 3, 2)
    assert (frames[..., 1] == 0).all() and (frames[..., 0] > 0).all()


def test_regions_on_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"region on the token grid: expected shape \(h, w\) with h = 3, w = 4, got"):
        check_regions(steering(regions=(torch.ones(4, 3), None, None)), TEXT_FIRST)
    with pytest.raises(ValueError, match="a weight and a region for each of 3 references, got 1 and 3"):
        check_regions(steering(weights=(1.0,)), TEXT_FIRST)


def test_no_reference_is_left_out_where_copies_are_lacking():
    """Plain attention would come of it: the third reference alone is steered."""
    layout = replace(TEXT_LAST, copies=TEXT_LAST.copies[:2])
    only_the_third = steering(regions=(None, None, LEFT), copies_are_pictures=False)
    with pytest.raises(ValueError, match="is shorter than"):
        steered_attention(only_the_third, layout, (0, layout.size), torch.device("cpu"))


def test_a_regional_conditioning_sees_its_part_of_a_region():
    whole = torch.zeros(4, 8)
    whole[:, :4] = 1.0
    regions = ReferenceRegions((whole,), (1.0,), strength=2.0)
    layout = CallLayout(9, (2, 2), (1, 5), ((0, 1),), (((5, 9),),))
    on_grid = regions.steering(layout.grid, (4, 4, 0, 2), (4, 8), True).regions[0]
    assert torch.equal(on_grid, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    part = regions.attention(layout, (0, 9), (4, 4, 0, 2), (4, 8))
    assert part is regions.attention(layout, (0, 9), (4, 4, 0, 2), (4, 8))  # made once
    assert regions.attention(layout, (0, 9), inside=False) is None
