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


def test_a_subject_without_positions_has_an_empty_map():
    query, key = drawn(0, (1, 64, 32)), drawn(1, (1, 7, 32))
    assert not coverage_of(phrase_attention(query, key, HEADS, ((), (2, 3))))[0, 0].any()


def test_sites_are_recorded_apart():
    record, maps = AttentionRecord(first_step=2), torch.rand(1, 1, 2, 2)
    assert record.observe("one", 0, maps) is None
    assert record.observe("two", 1, maps) is None
    assert record.observe("one", 1, maps) is not None


def peak(height, width, row, column):
    maps = torch.zeros(1, 1, height, width)
    maps[..., row, column] = 1.0
    return maps


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


@pytest.mark.parametrize("widths", [(2, 2), (3, 1), (3, 3)], ids=["equal tiles", "unequal tiles", "tiles that overlap"])
def test_tiles_make_one_map_of_the_picture(widths):
    """Each tile gets its own part of the layout that the whole picture would have had."""
    whole = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    windows = (Box(0, 0, widths[0] / 4, 1), Box(1 - widths[1] / 4, 0, 1, 1))
    tiles = (whole[..., : widths[0]], whole[..., 4 - widths[1] :])
    record, expected = AttentionRecord(first_step=2), coverage_of(whole.flatten(2)).unflatten(-1, (4, 4))
    assert all(record.observe("site", 0, tile, window) is None for tile, window in zip(tiles, windows))
    left, right = (record.observe("site", 1, tile, window) for tile, window in zip(tiles, windows))
    assert torch.equal(right, expected[..., 4 - widths[1] :])
    assert torch.equal(record.observe("site", 1, tiles[0], windows[0]), expected[..., : widths[0]])
    assert left.shape == tiles[0].shape
