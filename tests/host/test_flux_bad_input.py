"""References that are odd, too many, broken or lonely: one clear message, or what the help pages say happens."""

import logging

import pytest
import torch

from tests.host import flux_studio
from tests.host.pictures import photograph


@pytest.fixture(scope="module")
def flux(pack, comfy, tiny):
    return flux_studio.make(pack, comfy, tiny)


def refused(message, action, **inputs):
    with pytest.raises(ValueError, match=message) as caught:
        action(**inputs)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_a_model_without_dreamo(flux, caplog):
    refused(
        "model: expected one from Load DreamO, which brings the embeddings.*Put Load DreamO between",
        lambda: flux.apply((), model=flux.base.model),
    )
    flux.route((), model=flux.base.model, steps=1)  # the sampler takes every family; this one may be Kontext
    assert "the model has no DreamO; references are given to it as FLUX.1 Kontext reads them" in caplog.text


def test_a_model_of_another_family(flux, tiny_sdxl):
    refused(r"model: expected a Flux model \(FLUX.1-dev\), got SDXL", lambda: flux.apply((), model=tiny_sdxl.model))


@pytest.mark.parametrize("size", [(1, 1), (7, 513), (1, 400), (400, 1), (17, 23)], ids=str)
def test_odd_and_extreme_sizes_become_whole_tokens(flux, size):
    found, shown = flux.reference(photograph(*size))
    (only,) = found
    assert all(side % 16 == 0 and side > 0 for side in shown.shape[1:3])
    assert only.latent.shape[-2:] == (shown.shape[1] // 8, shown.shape[2] // 8)
    assert torch.isfinite(flux.ksample(*flux.apply(found), steps=1)).all()


def test_ten_references(flux):
    nine, _ = flux.reference(photograph(16, 16, batch=9))
    refused("expected at most 9", flux.reference, image=photograph(16, 16), references=nine)
    refused(
        "reference 1: expected at most 9 references .*each picture of a batch counts as one",
        flux.reference,
        image=photograph(16, 16, batch=10),
    )
    refused(
        "reference 8: expected at most 9 references and slots up to 9, got 0 and 3 more from slot 8 on",
        flux.reference,
        image=photograph(16, 16, batch=3),
        slot=8,
    )


def test_a_slot_that_is_taken(flux):
    one, _ = flux.reference(photograph(16, 16), slot=4)
    refused(
        "reference 4: expected a free slot, but another reference has it",
        flux.reference,
        image=photograph(16, 16),
        references=one,
        slot=4,
    )


def test_a_region_of_no_area_and_no_numbers(flux):
    refused(
        r"reference 1: region: expected some of the picture \(white\), got an empty mask",
        flux.reference,
        image=photograph(16, 16),
        region=torch.zeros(1, 8, 8),
    )
    refused(
        "reference 1: region: expected numbers",
        flux.reference,
        image=photograph(16, 16),
        region=torch.full((1, 8, 8), float("nan")),
    )
    refused(
        r"reference 1: region: expected one mask \(height, width\), got \(2, 8, 8\)",
        flux.reference,
        image=photograph(16, 16),
        region=torch.ones(2, 8, 8),
    )


@pytest.mark.parametrize("shape", [(1, 3, 5), (1, 500, 40), (64, 96)], ids=str)
def test_masks_of_another_size_are_fitted(flux, shape):
    mask = torch.zeros(shape)
    mask[..., : shape[-1] // 2 + 1] = 1.0
    found, _ = flux.reference(photograph(40, 60), mask=mask, region=mask)
    assert torch.isfinite(flux.route(found, steps=1, routing_strength=3.0)[0]).all()


def test_an_empty_mask_and_as_many_masks_as_fit_no_picture(flux):
    refused(
        r"reference 1: mask: expected some of the picture to keep \(white\), got an empty mask",
        flux.reference,
        image=photograph(16, 16),
        mask=torch.zeros(1, 16, 16),
    )
    refused(
        "reference 1: mask: expected one mask, or one for each of the 1 pictures",
        flux.reference,
        image=photograph(16, 16),
        mask=torch.ones(3, 16, 16),
    )


def test_a_picture_of_nan(flux):
    refused(
        r"reference 1: image: expected numbers in \[0, 1\], got NaN or infinity; load the picture again",
        flux.reference,
        image=torch.full((1, 16, 16, 3), float("nan")),
    )


def test_a_vae_of_another_family(flux, tiny_sdxl):
    found, _ = flux.reference(photograph(16, 16), vae=tiny_sdxl.vae)
    refused(
        "vae: reference 1 was encoded by a VAE of 4 latent channels, the model has 16", flux.apply, references=found
    )


def test_transparency_is_a_mask_and_white_is_what_the_model_sees(flux):
    _, shown = flux.reference(
        photograph(64, 64, channels=4)[..., :4] * torch.tensor([1.0, 1.0, 1.0, 0.0])
        + torch.nn.functional.pad(torch.zeros(1, 64, 64, 3), (0, 1))
        + torch.nn.functional.pad(torch.ones(1, 64, 32, 1), (3, 0, 0, 32))
    )
    assert shown.shape == (1, 256, 256, 3) and shown[0, :, 140:].min() == 1 and shown[0, :, :100].min() < 0.9


def test_a_face_is_cut_out_and_a_style_keeps_its_background(flux, caplog):
    mask = torch.zeros(1, 64, 96)
    mask[:, 10:30, 50:70] = 1.0
    _, face = flux.reference(photograph(64, 96), task="identity", mask=mask)
    assert face.shape == (1, 256, 256, 3) and face[0, 0, 0].tolist() == [1.0, 1.0, 1.0]
    _, style = flux.reference(photograph(64, 96), task="style", mask=mask)
    _, whole = flux.reference(photograph(64, 96), task="style")
    assert torch.equal(style, whole)
    _, without = flux.reference(photograph(64, 96), task="identity")
    assert torch.equal(without, whole) and "identity without a mask" in caplog.text


def test_guidance_3_with_and_without_a_negative(flux):
    found = flux.references({"image": photograph(40, 60)})
    empty = flux.text("")
    for negative in (flux.text("blurry"), empty):
        latent = flux.route(found, cfg=3.0, negative=negative)[0]
        assert torch.isfinite(latent).all()
        assert torch.equal(latent, flux.ksample(*flux.apply(found), negative=negative, cfg=3.0))


def test_routing_without_regions_says_so(flux, caplog):
    found = flux.references({"image": photograph(40, 60)})
    latent = flux.route(found, routing_strength=4.0)[0]
    assert "no reference has a region" in caplog.text
    assert torch.equal(latent, flux.route(found)[0])


@pytest.fixture
def words(flux, pack, monkeypatch, caplog):
    """Apply References with a prompt that the graph says, and what was warned of."""
    module = pack.module("nodes.host_comfy.flux.references")
    caplog.set_level(logging.WARNING)

    def warned(prompt, references, clip=None):
        monkeypatch.setattr(module, "positive_texts", lambda: [prompt])
        caplog.clear()
        flux.apply(references, positive=flux.text(prompt, clip))
        return caplog.text

    return warned


def test_placeholders_and_references_that_do_not_find_each_other(flux, words):
    two = flux.references({"image": photograph(40, 60)}, {"image": photograph(40, 60)})
    assert words("a fox from [ref#1] and a dog from [ref#2]", two) == words("a fox and a dog", two) == ""
    lost = words("a fox from [ref#1] and a dog from [ref#2] and [ref#3]", two)
    assert "the prompt names [ref#3], but no reference has that slot (there are: 1, 2)" in lost
    assert "[ref#12]" in words("a fox from [ref#1] and [ref#2] and [ref#12]", two)
    assert "the prompt uses placeholders but not [ref#2], whose reference is connected" in words("[ref#1]", two)


def test_placeholders_without_the_packs_clip(flux, words):
    found = flux.references({"image": photograph(40, 60)})
    text = words("a fox from [ref#1]", found, flux.base.clip)
    assert "reads placeholders as plain text. Connect the CLIP of Load DreamO to the text encoder" in text


def test_a_style_without_its_sentence_or_in_company(flux, words):
    one = flux.references({"image": photograph(40, 60), "task": "style"})
    assert "begin the prompt with 'generate a same style image.'" in words("a fox", one)
    assert words("Generate a same style image. A fox", one) == ""
    two = flux.references({"image": photograph(40, 60), "task": "style"}, {"image": photograph(40, 60)})
    assert "not made to combine a style" in words("generate a same style image. a fox", two)
