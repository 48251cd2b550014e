"""References as the image encoder sees them: cut out on white, padded, normalised as CLIP was trained."""

import pytest
import torch

from core.identity.image_prep import CLIP_MEAN, CLIP_STD
from core.subject.reference import encoder_pixels, null_boxes, pad_to_square, reference_square


@pytest.mark.parametrize("shape, content", [
    ((2, 5), (slice(1, 3), slice(0, 5))),
    ((4, 1), (slice(0, 4), slice(1, 2))),
    ((3, 3), (slice(0, 3), slice(0, 3))),
], ids=["wide", "tall", "square"])  # fmt: skip
def test_a_photograph_is_padded_in_white_on_both_sides_and_nothing_is_cut_off(shape, content):
    square = pad_to_square(torch.zeros(3, *shape))
    side = max(shape)
    expected = torch.ones(3, side, side)
    expected[(slice(None), *content)] = 0
    assert torch.equal(square, expected)


def test_a_subject_is_cut_out_of_its_photograph_on_white():
    photograph, mask = torch.full((3, 6, 8), 0.25), torch.zeros(6, 8)
    mask[1:3, 2:6] = 1
    expected = torch.ones(3, 4, 4)
    expected[:, 1:3] = 0.25
    assert torch.equal(reference_square(photograph, mask), expected)
    assert reference_square(photograph, None).shape == (3, 8, 8)


def test_pixels_are_resized_and_normalised_for_clip():
    pixels = encoder_pixels(torch.full((3, 9, 9), 0.2), 4)
    expected = (torch.full((3,), 0.2) - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert pixels.shape == (3, 4, 4)
    torch.testing.assert_close(pixels, expected[:, None, None].expand(3, 4, 4), atol=1e-5, rtol=0)


def test_boxes_are_a_constant_for_an_adapter_without_coordinates():
    boxes = torch.rand(1, 2, 4)
    assert null_boxes(boxes, True) is boxes and not null_boxes(boxes, False).any()
