"""MS-Diffusion's automatic layout against published numbers (a cross-attention filled from a fixed rule)."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.attention import attend
from core.identity.auto_layout import AttentionRecord, coverage_of, phrase_attention
from core.identity.branch import image_attention
from core.identity.tokens import token_gains, token_mask
from core.scene import Box, Layout

HEADS, SIDE, TOKENS, BACKGROUND, TEXT = 4, 8, 4, 3, 7
BOXES = Layout((Box(0, 0.2, 0.55, 0.85), Box(0.55, 0.26, 0.95, 0.90)))


def filled(shapes):
    """The rule of the published numbers: the k-th tensor by name is drawn from RandomState(1000 + k)."""
    state = {}
    for k, (name, shape) in enumerate(sorted(shapes.items())):
        z = np.random.RandomState(1000 + k).standard_normal(int(np.prod(shape))).reshape(shape)
        state[name] = torch.tensor(z / np.sqrt(z.size / shape[0]) if len(shape) > 1 else 0.1 * z, dtype=torch.float32)
    return state


def drawn(j, shape):
    return torch.tensor(np.random.RandomState(7 + j).standard_normal(shape), dtype=torch.float32)


ATTENTION = filled(
    {"to_k": (32, 48), "to_out.0.bias": (32,), "to_out.0.weight": (32, 32), "to_q": (32, 32), "to_v": (32, 48)}
)
BRANCH = filled({"to_k_ip": (32, 48), "to_v_ip": (32, 48)})
HIDDEN, CONTEXT = drawn(3, (2, 64, 32)), drawn(4, (2, 18, 48))


NAMES = ((2,), (5, 6))


def layer(hidden, coverage=None, record=None, weights=(1.0, 1.0), gamma=0.6, step=0):
    """The whole layer; row 0 is unconditional."""
    query = F.linear(hidden, ATTENTION["to_q"])
    key, value = F.linear(CONTEXT[:, :TEXT], ATTENTION["to_k"]), F.linear(CONTEXT[:, :TEXT], ATTENTION["to_v"])
    out = attend(query, key, value, HEADS)
    if record is not None:
        maps = phrase_attention(query[1:], key[1:], HEADS, NAMES).unflatten(-1, (SIDE, SIDE))
        coverage = record.observe("site", step, maps)
    coverage = BOXES.coverage(SIDE, SIDE) if coverage is None else coverage
    tokens = CONTEXT[1:, TEXT:]
    gains = token_gains(torch.tensor(weights), BACKGROUND, TOKENS)
    image = image_attention(
        query[1:],
        F.linear(tokens, BRANCH["to_k_ip"]),
        F.linear(tokens, BRANCH["to_v_ip"]) * gains[:, None],
        HEADS,
        token_mask(coverage, BACKGROUND, TOKENS),
    )
    out = torch.cat((out[:1], out[1:] + gamma * image))
    return F.linear(out, ATTENTION["to_out.0.weight"], ATTENTION["to_out.0.bias"]), coverage


def check(out, total, squares, first=None):
    assert out.double().sum().item() == pytest.approx(total, abs=1e-3)
    assert (out.double() ** 2).sum().item() == pytest.approx(squares, abs=1e-3)
    if first:
        torch.testing.assert_close(out.flatten()[: len(first)], torch.tensor(first), atol=1e-4, rtol=0)


def test_the_layer_agrees_with_boxes():
    out, coverage = layer(HIDDEN)
    check(out, 332.268363, 1396.329567, (0.976282, 0.062249, 0.421385, -0.524858))
    check(out[0], 145.506462, 538.345094)
    assert int(coverage.any(dim=0).sum()) == 49


def test_the_layer_agrees_with_subject_weights():
    check(layer(HIDDEN, weights=(0.3, 0.9), gamma=1.0)[0], 317.393185, 1444.221065)


def test_the_layer_agrees_with_overlapping_boxes():
    overlapping = Layout((Box(0, 0.2, 0.7, 0.85), Box(0.45, 0.25, 0.95, 0.9))).coverage(SIDE, SIDE)
    check(layer(HIDDEN, overlapping)[0], 336.206701, 1381.282216)


def test_the_automatic_layout_agrees():
    record = AttentionRecord(first_step=2)
    out, _ = layer(HIDDEN, record=record)
    assert out.double().sum().item() == pytest.approx(332.268361, abs=1e-3)  # the boxes still
    out, coverage = layer(0.9 * HIDDEN, record=record, step=1)
    check(out, 314.545173, 1259.019524, (0.919848, 0.044696))
    assert coverage[0].sum(dim=(1, 2)).tolist() == [26, 22]
    assert int(coverage[0].any(dim=0).sum()) == 43


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_attention_on_a_name_is_a_mean_over_its_tokens_and_over_heads(dtype):
    query, key = drawn(0, (2, 6, 32)).to(dtype), drawn(1, (2, 7, 32)).to(dtype)
    maps = phrase_attention(query, key, HEADS, ((), (2, 3), (5,)))
    assert maps.dtype == torch.float32
    heads = zip(query.float().chunk(HEADS, dim=-1), key.float().chunk(HEADS, dim=-1))
    shares = torch.stack([(q @ k.mT / 8**0.5).softmax(dim=-1) for q, k in heads]).mean(dim=0)  # 8 channels a head
    by_hand = torch.stack((torch.zeros(2, 6), (shares[..., 2] + shares[..., 3]) / 2, shares[..., 5]), dim=1)
    torch.testing.assert_close(maps, by_hand)


def test_covered_is_what_lies_above_the_middle_of_a_maps_own_range():
    assert coverage_of(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.9, 1.0]])).tolist() == [
        [False, False, True],
        [False, True, True],
    ]
    assert not coverage_of(torch.full((1, 3), 0.25)).any()


def test_sites_are_recorded_apart():
    record, maps = AttentionRecord(first_step=2), torch.rand(1, 1, 2, 2)
    assert record.observe("one", 0, maps) is None
    assert record.observe("two", 1, maps) is None
    assert record.observe("one", 1, maps) is not None


def peak(height, width, row, column):
    maps = torch.zeros(1, 1, height, width)
    maps[..., row, column] = 1.0
    return maps


def test_boxes_are_used_for_four_steps():
    record = AttentionRecord()
    assert [record.observe("site", step, peak(2, 2, 0, 0)) is None for step in range(6)] == [True] * 4 + [False] * 2


def test_a_record_may_begin_with_a_later_step():
    coverage = AttentionRecord(first_step=1).observe("site", 1, peak(2, 2, 0, 1))
    assert coverage.flatten().tolist() == [False, True, False, False]


def test_maps_without_a_grid_are_refused():
    with pytest.raises(ValueError, match=r"attention maps: expected shape \(B, S, h, w\), got \(1, 2, 16\)"):
        AttentionRecord().observe("site", 0, torch.zeros(1, 2, 16))


def test_several_calls_in_a_step_are_one_step():
    """As perturbed-attention guidance makes them: the first call counts, and the layout stays the same in the step."""
    record = AttentionRecord(first_step=2)
    assert record.observe("site", 0, peak(2, 2, 0, 0)) is None
    assert record.observe("site", 0, peak(2, 2, 1, 1)) is None
    first = record.observe("site", 1, peak(2, 2, 0, 0))
    assert first.flatten().tolist() == [True, False, False, False]
    assert torch.equal(record.observe("site", 1, peak(2, 2, 1, 1)), first)


@pytest.mark.parametrize("sizes", [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((5, 3), (9, 7))], ids=str)
def test_a_grid_that_changes_goes_on_with_the_resized_map(sizes):
    (height, width), (taller, wider) = sizes
    record = AttentionRecord(first_step=2)
    left = torch.zeros(1, 1, height, width)
    left[..., : width // 2] = 1.0
    assert record.observe("site", 0, left) is None
    coverage = record.observe("site", 1, torch.zeros(1, 1, taller, wider))
    assert coverage.shape == (1, 1, taller, wider)
    assert coverage[..., 0].all() and not coverage[..., -1].any()


def test_a_resized_map_keeps_the_weight_of_its_steps():
    """Two steps on the left at 1, then one on another grid on the right at 0.9: a third of it is below the middle."""
    record = AttentionRecord(first_step=3)
    left, right = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8)
    left[..., :2], right[..., 4:] = 1.0, 0.9
    assert record.observe("site", 0, left) is None
    assert record.observe("site", 1, left) is None
    coverage = record.observe("site", 2, right)
    assert coverage[..., 0].all() and not coverage[..., -1].any()


def test_a_peak_between_the_cells_of_a_coarser_grid_is_not_lost():
    record = AttentionRecord(first_step=2)
    assert record.observe("site", 0, peak(8, 8, 0, 7)) is None
    coverage = record.observe("site", 1, torch.zeros(1, 1, 2, 2))
    assert coverage.flatten().tolist() == [False, True, False, False]


@pytest.mark.parametrize("across", [True, False], ids=["side by side", "one above the other"])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (3, 3)], ids=["equal tiles", "unequal tiles", "tiles that overlap"])
def test_tiles_make_one_map_of_the_picture(sizes, across):
    """Each tile gets its own part of the layout that the whole picture would have had."""
    whole = torch.rand(1, 2, 6, 4, generator=torch.Generator().manual_seed(1))
    expected = coverage_of(whole.flatten(2)).unflatten(-1, (6, 4))
    starts, ends = (0, 1 - sizes[1] / 4), (sizes[0] / 4, 1)
    windows = [Box(start, 0, end, 1) if across else Box(0, start, 1, end) for start, end in zip(starts, ends)]

    def turned(picture):
        return picture if across else picture.mT

    def parts(picture):
        return turned(picture[..., : sizes[0]]), turned(picture[..., 4 - sizes[1] :])

    record, tiles = AttentionRecord(first_step=2), parts(whole)
    assert all(record.observe("site", 0, tile, window) is None for tile, window in zip(tiles, windows))
    for tile, window, part in zip(
        tiles, windows, parts(expected)
    ):  # where one tile has been seen once more than another
        assert torch.equal(record.observe("site", 1, tile, window), part)
    assert torch.equal(record.observe("site", 1, tiles[0], windows[0]), parts(expected)[0])


def test_parts_that_no_tile_has_shown_yet_have_no_attention():
    record, tile = AttentionRecord(first_step=1), torch.tensor([[[[0.4, 1.0]]]])
    assert record.observe("site", 0, tile, Box(0, 0, 0.5, 1)).flatten().tolist() == [False, True]


def test_a_tile_stands_where_its_rounded_edges_are():
    """0.29 * 100 is 28.999999999999996 in binary, and 10 / (0.39 - 0.29) is less than 100."""
    whole = (torch.rand(1, 1, 100, 100, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    record = AttentionRecord(first_step=1)
    assert torch.equal(record.observe("site", 0, whole), whole.bool())
    tile = record.observe("site", 0, torch.ones(1, 1, 10, 10), Box(0.29, 0.29, 0.39, 0.39))
    assert torch.equal(tile, whole[..., 29:39, 29:39].bool())
