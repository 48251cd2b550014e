"""Photographs as CLIP sees them: cut out on white, squashed as PIL does, normalised by CLIP's own numbers."""

import numpy as np
import pytest
import torch
from PIL import Image

from core.identity.image_prep import cut_out, normalise_pixels, squares, squash


def test_a_subject_is_cut_to_its_bounding_box_and_blended_on_white():
    photograph, mask = torch.full((1, 3, 4, 6), 0.25), torch.zeros(1, 4, 6)
    mask[0, 1:3, 2:5] = torch.tensor([[1.0, 0.5, 1.2], [0.6, 1.0, 1.0]])
    mask[0, 0, 0], mask[0, 3, 5] = 0.5, 0.4  # half and less is not the subject
    (piece,) = cut_out(photograph, mask)
    expected = torch.tensor([[0.25, 0.5 * 0.25 + 0.5, 0.25], [0.6 * 0.25 + 0.4, 0.25, 0.25]])
    torch.testing.assert_close(piece, expected.expand(3, -1, -1))


def test_what_is_more_than_half_a_subject_is_inside_its_box():
    row = torch.tensor([[[0.5, 0.6, 1.0, 0.5]]])
    assert cut_out(torch.zeros(1, 3, 1, 4), row)[0].shape == (3, 1, 2)
    assert cut_out(torch.zeros(1, 3, 4, 1), row.mT)[0].shape == (3, 2, 1)


def test_a_mask_below_0_is_background():
    mask = torch.tensor([[[1.0, -0.5, 1.0]]])
    assert cut_out(torch.zeros(1, 3, 1, 3), mask)[0][0].tolist() == [[0, 1, 0]]


def test_without_a_mask_all_of_each_photograph_is_kept():
    photographs = torch.rand(2, 3, 4, 5)
    assert torch.equal(torch.stack(cut_out(photographs, None)), photographs)


@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 5, 6), (1, 4, 5)])
def test_a_mask_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask: expected shape \(V, H, W\) with V = 1, H = 4, W = 6, got"):
        cut_out(torch.zeros(1, 3, 4, 6), torch.ones(shape))


def test_squashing_is_pils_by_way_of_512_to_one_level():
    """Away from black and white, where PIL cuts off what overshoots between its two passes as well."""
    pixels = np.random.RandomState(0).randint(64, 192, (90, 60, 3)).astype(np.uint8)
    theirs = Image.fromarray(pixels).resize((512, 512), Image.BICUBIC).resize((64, 64), Image.BICUBIC)
    ours = squash(torch.from_numpy(pixels).movedim(-1, 0) / 255, 64) * 255
    assert ours.shape == (3, 64, 64) and torch.equal(ours, ours.round())
    difference = (ours - torch.from_numpy(np.array(theirs)).movedim(-1, 0)).abs()
    assert difference.max() <= 1 and difference.mean() < 0.15


def test_squashing_keeps_to_the_range_whatever_comes():
    picture = torch.tensor([-1.0, 2.0]).repeat(3, 8, 4).half()
    square = squash(picture, 16)
    assert square.dtype == torch.float32 and (square.min(), square.max()) == (0, 1)


def test_each_photograph_has_its_own_square():
    photographs, mask = torch.rand(2, 3, 20, 30), torch.zeros(2, 20, 30)
    mask[0, :10, :10], mask[1, 5:, 20:] = 1, 1
    together = squares(photographs, mask, 8)
    apart = [squash(photographs[0, :, :10, :10], 8), squash(photographs[1, :, 5:, 20:], 8)]
    assert torch.equal(together, torch.stack(apart))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pixels_are_normalised_by_clips_own_numbers(dtype):
    grey = normalise_pixels(torch.full((2, 3, 4, 4), 0.5, dtype=dtype))
    expected = torch.tensor([0.0690370, 0.1613928, 0.3328386])  # of OpenAI's mean and deviation of each channel
    assert grey.dtype == dtype
    torch.testing.assert_close(
        grey[1, :, 2, 3].float(), expected, atol=1e-6 if dtype == torch.float32 else 2e-3, rtol=0
    )
