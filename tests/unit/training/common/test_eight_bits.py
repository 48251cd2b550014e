"""Weights in 8 bits: how far they are off, and that what was rounded is read again."""

import torch

from training.common.eight_bits import SCALE, restored, rounded


def test_a_weight_is_off_by_half_a_step_of_its_row_at_most():
    draw = torch.Generator().manual_seed(0)
    weights = {
        "kernel": torch.randn(5, 3, 2, 2, generator=draw) * torch.tensor([1e-3, 1.0, 7.0, 40.0, 0.1]).view(-1, 1, 1, 1),
        "bias": torch.randn(5, generator=draw),
        "zero": torch.zeros(2, 3),
    }
    stored = rounded(weights)
    assert stored["kernel"].dtype == torch.int8 and stored["kernel" + SCALE].shape == (5,)
    assert stored["bias"].dtype == torch.float16 and "bias" + SCALE not in stored
    read = restored(stored)
    assert set(read) == set(weights) and all(value.dtype == torch.float32 for value in read.values())
    step = weights["kernel"].flatten(1).abs().amax(1) / 127
    off = (read["kernel"] - weights["kernel"]).flatten(1).abs().amax(1)
    assert (off <= 0.6 * step).all() and (off > 0).all()
    assert torch.equal(read["zero"], weights["zero"])


def test_rounding_twice_changes_nothing_and_plain_files_are_read_too():
    weights = {"matrix": torch.randn(4, 6, generator=torch.Generator().manual_seed(1))}
    once = restored(rounded(weights))
    assert torch.allclose(restored(rounded(once))["matrix"], once["matrix"], atol=1e-6)
    assert torch.equal(restored({"matrix": weights["matrix"].half()})["matrix"], weights["matrix"].half().float())
