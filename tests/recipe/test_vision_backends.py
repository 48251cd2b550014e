"""Detectors, segmenters and encoders, opened as users open them: tiny random checkpoints saved and loaded again."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe import tiny_vision
from training.common.vision import Detection, crop, select
from training.host_diffusers.detectors import corners, grounding_prompt, name_spans, open_detector
from training.host_diffusers.embedders import load_image_encoder
from training.host_diffusers.segmenters import open_segmenter

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=["grounding_dino", "owlv2", "sam3"])
def detector(request, tmp_path_factory):
    return open_detector(str(getattr(tiny_vision, request.param)(tmp_path_factory.mktemp(request.param))), "cpu")


@pytest.fixture(scope="module")
def grounding(tmp_path_factory):
    return open_detector(str(tiny_vision.grounding_dino(tmp_path_factory.mktemp("gd"))), "cpu")


def test_a_detector_returns_boxes_in_the_picture_under_the_names_asked_for(detector):
    found = detector.detect(WIDE, ["cat", "plushie bear"])
    assert len(found) > 3 and {one.name for one in found} <= {"cat", "plushie bear"}
    for one in found:
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 and 0 <= one.score <= 1


def test_a_detector_finds_the_same_again(detector):
    first, second = (detector.detect(WIDE, ["cat", "dog"]) for _ in range(2))
    assert [(one.box, one.score, one.name) for one in first] == [(one.box, one.score, one.name) for one in second]


def test_sam_3_brings_a_mask_of_the_pictures_size_with_each_box(tmp_path):
    found = open_detector(str(tiny_vision.sam3(tmp_path)), "cpu").detect(WIDE, ["plushie bear"])
    assert len(found) == 6 and {one.name for one in found} == {"plushie bear"}  # it has six queries
    assert all(one.mask.shape == (60, 80) and one.mask.dtype == bool for one in found)


def test_names_are_found_in_the_prompt(grounding):
    prompt = grounding_prompt(["Cat", "plushie bear"])
    assert prompt == "a cat. a plushie bear."
    ids = grounding.processor.tokenizer(prompt, return_tensors="pt")["input_ids"][0]
    assert name_spans(grounding.processor.tokenizer, ids, ["Cat", "plushie bear"]) == [[2], [5, 6]]
    unknown = grounding.processor.tokenizer(grounding_prompt(["zebra", "cat"]), return_tensors="pt")["input_ids"][0]
    assert name_spans(grounding.processor.tokenizer, unknown, ["zebra", "cat"]) == [[2], [5]]
    with pytest.raises(ValueError, match="words without full stops"):
        grounding.detect(WIDE, ["St. Bernard", "cat"])


def test_a_shared_word_does_not_decide_between_names(grounding, monkeypatch):
    """'a plushie bear. a polar bear.': the second 'bear' scores best, 'plushie' better than 'polar'."""
    logits = torch.full((1, 1, 64), -9.0)
    for place, value in ((2, 2.0), (3, 2.0), (6, -3.0), (7, 2.1)):
        logits[0, 0, place] = value
    output = type("Output", (), {"logits": logits, "pred_boxes": torch.tensor([[[0.5, 0.5, 0.2, 0.4]]])})
    monkeypatch.setattr(grounding, "model", lambda **inputs: output)
    (found,) = grounding.detect(WIDE, ["plushie bear", "polar bear"])
    assert found.name == "plushie bear" and found.score == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert found.box == pytest.approx((0.4, 0.3, 0.6, 0.7))


def test_the_padding_of_owl_is_taken_out_of_its_boxes(tmp_path, monkeypatch):
    """A picture of 80 x 60 is the upper three quarters of a square of 80 x 80."""
    owl = open_detector(str(tiny_vision.owlv2(tmp_path)), "cpu")
    output = type(
        "Output", (), {"logits": torch.tensor([[[-1.0, 3.0]]]), "pred_boxes": torch.tensor([[[0.5, 0.375, 0.5, 0.75]]])}
    )
    monkeypatch.setattr(owl, "model", lambda **inputs: output)
    (found,) = owl.detect(WIDE, ["cat", "dog"])
    assert found.name == "dog" and found.box == pytest.approx((0.25, 0, 0.75, 1))


def test_boxes_are_cut_at_the_edges():
    assert corners(torch.tensor([[0.0, 0.5, 0.5, 2.0]])) == [(0.0, 0.0, 0.25, 1.0)]


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_a_segmenter_gives_a_mask_of_the_picture_for_each_box(kind, tmp_path):
    segmenter = open_segmenter(str(getattr(tiny_vision, kind)(tmp_path)), "cpu")
    boxes = [(0.1, 0.1, 0.5, 0.6), (0.2, 0.0, 0.9, 0.9)]
    masks = segmenter.masks(WIDE, boxes)
    assert [(mask.shape, mask.dtype) for mask in masks] == [((60, 80), bool)] * 2
    again = segmenter.masks(WIDE, boxes[1:])
    assert np.array_equal(masks[1], again[0])  # boxes do not depend on each other
    assert segmenter.masks(WIDE, []) == []


@pytest.mark.parametrize("kind", ["dinov2", "siglip", "clip"])
def test_an_encoder_embeds_pictures_of_any_size_alone_as_together(kind, tmp_path):
    encoder = load_image_encoder(str(getattr(tiny_vision, kind)(tmp_path)), "cpu", torch.float32)
    other = Image.new("RGB", (20, 50), (0, 200, 100))
    vectors = encoder.pictures([WIDE, other])
    assert vectors.shape == (2, 16) and vectors.dtype == torch.float32
    torch.testing.assert_close(encoder.pictures([other]), vectors[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["miniworld", "miniworld-local"])
def test_the_miniworlds_encoders_open_by_name(name):
    assert load_image_encoder(name, "cpu", torch.float32).pictures([WIDE]).ndim == 2


@pytest.mark.parametrize(
    "option, load",
    [
        ("--detector", open_detector),
        ("--segmenter", open_segmenter),
        ("--encoder", lambda name, device: load_image_encoder(name, device, torch.float32)),
    ],
)
def test_what_cannot_be_opened_is_named_with_its_option(option, load, tmp_path):
    with pytest.raises(ValueError, match=f"{option} {tmp_path}: cannot be opened"):
        load(str(tmp_path), "cpu")


def test_a_model_of_another_kind_is_refused(tmp_path):
    folder = str(tiny_vision.dinov2(tmp_path))
    with pytest.raises(ValueError, match="a model of type 'dinov2'; expected one of grounding-dino"):
        open_detector(folder, "cpu")
    with pytest.raises(ValueError, match="a model of type 'dinov2'; expected one of sam"):
        open_segmenter(folder, "cpu")


def test_faint_tiny_and_doubled_detections_are_left_out():
    whole = (0.1, 0.1, 0.5, 0.9)
    found = [
        Detection("cat", whole, 0.6),
        Detection("dog", (0.1, 0.1, 0.5, 0.88), 0.8),
        Detection("cat", (0.6, 0.1, 0.9, 0.9), 0.29),
        Detection("cat", (0.6, 0.1, 0.64, 0.9), 0.9),
        Detection("cat", (0.3, 0.1, 0.7, 0.9), 0.5),
    ]
    assert [(one.name, one.score) for one in select(found, (100, 100))] == [("dog", 0.8), ("cat", 0.5)]
    assert select([], (100, 100)) == []


def test_a_crop_is_a_white_square_around_the_masked_subject():
    image, mask = Image.new("RGB", (10, 10), (255, 0, 0)), np.zeros((10, 10), bool)
    mask[2:6, 2:4] = True
    square = np.asarray(crop(image, (0.2, 0.2, 0.5, 0.6), mask))  # 3 x 4 pixels, of which 2 x 4 are the subject
    assert square.shape == (4, 4, 3)
    assert (square[:, 0:2] == (255, 0, 0)).all() and (square[:, 2:] == 255).all()
    with pytest.raises(ValueError, match="holds no pixel"):
        crop(image, (0.5, 0.5, 0.5, 0.5))
