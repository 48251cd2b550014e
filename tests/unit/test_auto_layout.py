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


ATTENTION = filled({"to_k": (32, 48), "to_out.0.bias": (32,), "to_out.0.weight": (32, 32), "to_q": (32, 32),
                    "to_v": (32, 48)})
BRANCH = filled({"to_k_ip": (32, 48), "to_v_ip": (32, 48)})
HIDDEN, CONTEXT = drawn(3, (2, 64, 32)), drawn(4, (2, 18, 48))


def layer(hidden, coverage=None, record=None, weights=(1.0, 1.0), gamma=0.6):
    """The whole layer; row 0 is unconditional."""
    query = F.linear(hidden, ATTENTION["to_q"])
    key, value = F.linear(CONTEXT[:, :TEXT], ATTENTION["to_k"]), F.linear(CONTEXT[:, :TEXT], ATTENTION["to_v"])
    out = attend(query, key, value, HEADS)
    if record is not None:
        coverage = record.observe("site", phrase_attention(query[1:], key[1:], HEADS, record.spans))
        coverage = None if coverage is None else coverage.unflatten(-1, (SIDE, SIDE))
    coverage = BOXES.coverage(SIDE, SIDE) if coverage is None else coverage
    tokens = CONTEXT[1:, TEXT:]
    gains = token_gains(torch.tensor(weights), BACKGROUND, TOKENS)
    image = image_attention(query[1:], F.linear(tokens, BRANCH["to_k_ip"]),
                            F.linear(tokens, BRANCH["to_v_ip"]) * gains[:, None], HEADS,
                            token_mask(coverage, BACKGROUND, TOKENS))
    out = torch.cat((out[:1], out[1:] + gamma * image))
    return F.linear(out, ATTENTION["to_out.0.weight"], ATTENTION["to_out.0.bias"]), coverage


def check(out, total, squares, first=None):
    assert out.double().sum().item() == pytest.approx(total, abs=1e-3)
    assert (out.double() ** 2).sum().item() == pytest.approx(squares, abs=1e-3)
    if first:
        torch.testing.assert_close(out.flatten()[:len(first)], torch.tensor(first), atol=1e-4, rtol=0)


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
    record = AttentionRecord(((2, 3), (5, 7)), first_step=2)
    out, _ = layer(HIDDEN, record=record)
    assert out.double().sum().item() == pytest.approx(332.268361, abs=1e-3)  # the boxes still
    out, coverage = layer(0.9 * HIDDEN, record=record)
    check(out, 314.545173, 1259.019524, (0.919848, 0.044696))
    assert coverage[0].sum(dim=(1, 2)).tolist() == [26, 22]
    assert int(coverage[0].any(dim=0).sum()) == 43


def test_a_subject_the_prompt_does_not_name_acts_nowhere():
    query, key = drawn(0, (1, 64, 32)), drawn(1, (1, 7, 32))
    assert not coverage_of(phrase_attention(query, key, HEADS, (None, (2, 3))))[0, 0].any()


def test_sites_are_recorded_apart():
    record, maps = AttentionRecord(((0, 1),), first_step=2), torch.rand(1, 1, 4)
    assert record.observe("one", maps) is None
    assert record.observe("two", maps) is None
    assert record.observe("one", maps) is not None
