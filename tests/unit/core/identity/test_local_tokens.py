"""Dense CLIP features and local tokens against the authors' own (tests/golden/dense_clip_public.npz)."""

import json

import pytest
import torch
from torch.nn import functional as F

from core.attention import attend
from core.identity.local_tokens import DENSE_SCALE, ValuePath, VisionTower, dense_features, pool, rescale_positions
from tests import golden_tensors


@pytest.fixture(scope="module")
def golden():
    tensors, metadata = golden_tensors.read("dense_clip_public")
    return tensors | {"config": json.loads(metadata["config"])}


@pytest.fixture(scope="module")
def tower(golden):
    """The golden encoder's parts, straight from its open_clip tensors."""

    def at(name):
        return golden[f"visual.{name}"]

    def norm(name):
        return lambda x: F.layer_norm(x, x.shape[-1:], at(f"{name}.weight"), at(f"{name}.bias"))

    def linear(weight, bias):
        return lambda x: F.linear(x, weight, bias)

    def parts(index):
        block = f"transformer.resblocks.{index}"
        projections = zip(at(f"{block}.attn.in_proj_weight").chunk(3), at(f"{block}.attn.in_proj_bias").chunk(3))
        q, k, v = (linear(weight, bias) for weight, bias in projections)
        out = linear(at(f"{block}.attn.out_proj.weight"), at(f"{block}.attn.out_proj.bias"))
        hidden = linear(at(f"{block}.mlp.c_fc.weight"), at(f"{block}.mlp.c_fc.bias"))
        shown = linear(at(f"{block}.mlp.c_proj.weight"), at(f"{block}.mlp.c_proj.bias"))
        return norm(f"{block}.ln_1"), q, k, v, out, norm(f"{block}.ln_2"), lambda x: shown(F.gelu(hidden(x)))

    def whole(index):
        norm1, q, k, v, out, norm2, mlp = parts(index)

        def block(x):
            y = norm1(x)
            x = x + out(attend(q(y), k(y), v(y), golden["config"]["heads"]))
            return x + mlp(norm2(x))

        return block

    norm1, _, _, v, out, norm2, mlp = parts(golden["config"]["layers"] - 1)
    return VisionTower(
        patches=lambda x: F.conv2d(x, at("conv1.weight"), stride=14),
        class_embedding=at("class_embedding"),
        positions=at("positional_embedding"),
        norm_before=norm("ln_pre"),
        blocks=[whole(index) for index in range(golden["config"]["layers"] - 1)],
        last=ValuePath(norm1, v, out, norm2, mlp),
        norm_after=norm("ln_post"),
        patch_size=14,
    )


def close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def tokens(dense):
    return dense.flatten(2).transpose(1, 2)


def test_positions_are_rescaled_as_published(golden):
    close(rescale_positions(golden["visual.positional_embedding"], 8, 8), golden["rescaled_positional_embedding"], 1e-6)


def test_positions_of_the_native_grid_are_untouched(golden):
    positions = golden["visual.positional_embedding"]
    assert rescale_positions(positions, 4, 4) is positions


def test_dense_features_agree(tower, golden):
    close(tokens(dense_features(tower, golden["image"])), golden["dense"])


def test_dense_features_agree_at_the_native_size(tower, golden):
    close(tokens(dense_features(tower, golden["image_native"])), golden["dense_native"])


@pytest.mark.parametrize("grid", [2, 4])
def test_local_tokens_agree(tower, golden, grid):
    close(pool(dense_features(tower, golden["image"]), grid), golden[f"local_tokens_{grid}x{grid}"])


def test_every_photograph_has_its_own_local_tokens(tower, golden):
    """The released code gives every subject the tokens of the first photograph."""
    both = pool(dense_features(tower, golden["image"]), 4)
    close(both[1:], pool(dense_features(tower, golden["image"][1:]), 4), 1e-6)
    assert (both[0] - both[1]).abs().max() > 0.01


def test_progress_is_told_once_a_block(tower, golden):
    steps = []
    dense_features(tower, golden["image"], lambda: steps.append(1))
    assert len(steps) == golden["config"]["layers"] - 1


def test_a_grid_that_does_not_divide_the_map_covers_all_of_it():
    pooled = pool(torch.ones(1, 2, 8, 8), 3)
    assert pooled.shape == (1, 9, 2)
    close(pooled, torch.ones_like(pooled))


@pytest.mark.parametrize("grid", [0, 9])
def test_an_impossible_grid_is_refused(grid):
    with pytest.raises(ValueError, match=f"local grid: expected 1 to 8 cells a side for this encoder, got {grid}"):
        pool(torch.ones(1, 2, 8, 8), grid)


def test_a_grid_that_divides_the_map_is_the_plain_mean_of_each_cell_bit_for_bit():
    """What is trained from a seed is the same bytes only if this is."""
    dense = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    cells = dense.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean(dim=(3, 5))
    assert torch.equal(pool(dense, 4), cells.flatten(2).transpose(1, 2))


def test_grids_up_to_the_shorter_side_are_pooled():
    dense = torch.rand(1, 2, 8, 4)
    close(pool(dense, 1)[:, 0], dense.mean(dim=(2, 3)), 1e-6)
    close(pool(dense, 4), tokens(dense.unflatten(2, (4, 2)).mean(dim=3)), 1e-6)
    with pytest.raises(ValueError, match="local grid: expected 1 to 4 cells a side for this encoder, got 5"):
        pool(dense, 5)


@pytest.mark.parametrize("height, width", [(112, 113), (113, 112)])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(tower, height, width):
    with pytest.raises(ValueError, match=f"expected sides that are multiples of 14, got {height} x {width}"):
        dense_features(tower, torch.zeros(1, 3, height, width))


def test_an_encoder_of_half_precision_gives_features_of_length_1_in_full_precision():
    def block(x):
        assert x.dtype == torch.bfloat16
        return x

    path = ValuePath(*[torch.nn.Identity()] * 5)
    positions = torch.rand(5, 6)  # in full precision, as ComfyUI may keep them
    parts = VisionTower(
        lambda x: x[:, :1].expand(-1, 6, -1, -1), torch.rand(6), positions, block, [block], path, block, 1
    )
    dense = dense_features(parts, torch.rand(1, 3, 3, 4).bfloat16())
    assert dense.dtype == torch.float32 and dense.shape == (1, 6, 3, 4)
    close(dense.norm(dim=1), torch.ones(1, 3, 4), 1e-6)
    assert rescale_positions(positions.bfloat16(), 3, 4).dtype == torch.bfloat16


def test_the_dense_map_of_clip_is_read_at_896_pixels():
    assert DENSE_SCALE * 224 == 896
