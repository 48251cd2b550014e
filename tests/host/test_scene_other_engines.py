"""Apply Scene where references are not ComfyUI's own: SDXL with an identity model, Flux.1 with DreamO."""

import importlib

import pytest
import torch

from tests.host import flux_studio
from tests.host.scene_studio import NAMES, same
from tests.host.studio import LEFT, RIGHT

PROMPT = "a cat is hugging a plushie bear"


@pytest.fixture(scope="module")
def flux(pack, comfy, tiny):
    return flux_studio.make(pack, comfy, tiny)


def images():
    return [torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


def two(studio, **common):
    return studio.scene(
        *({"image": image, "name": name, "box": box} for image, name, box in zip(images(), NAMES, (LEFT, RIGHT))),
        **common,
    )


def on_sdxl(studio, scene, **inputs):
    base = studio.base
    return studio.pack.run(
        "RelateApplyScene",
        model=base.model,
        clip=base.clip,
        vae=base.vae,
        scene=scene,
        **{
            "prompt": PROMPT,
            "negative": "blurry",
            "identity_model": studio.identity_model(),
            "clip_vision": base.clip_vision,
            "width": 192,
            "height": 128,
            **inputs,
        },
    )


def test_an_empty_window_on_sdxl_is_said_to_leave_the_subjects_out(studio, caplog):
    model, positive, *_ = on_sdxl(studio, two(studio), start_at=0.5, end_at=0.5, strength=3.0)
    assert "the window is empty (start_at 0.5, end_at 0.5); the subjects do not act." in caplog.text
    assert torch.equal(studio.sample(model, positive), studio.sample(None, positive))


@pytest.mark.parametrize(("strength", "layout"), [(3.0, "boxes"), (0.0, "none")])
def test_sdxl_is_encode_and_apply_identity(studio, strength, layout):
    scene = two(studio)
    model, positive, negative, latent, prompt, references = on_sdxl(studio, scene, strength=strength)
    by_hand = studio.apply(studio.identity(scene), layout=layout)
    ours = studio.sample(model, positive)
    assert torch.equal(ours, studio.sample(by_hand, studio.text(PROMPT)))
    assert not torch.equal(ours, studio.sample(None, studio.text(PROMPT)))
    assert prompt == PROMPT and latent["samples"].shape == (1, 4, 16, 24) and len(references) == 2
    assert torch.equal(negative[0][0], studio.text("blurry")[0][0])


def test_sdxl_without_clip_vision(studio):
    with pytest.raises(ValueError, match="clip_vision: expected the encoder that the identity model was trained with"):
        on_sdxl(studio, two(studio), clip_vision=None)


def test_sdxl_reads_where_the_names_stand(studio):
    _, positive, *_ = on_sdxl(studio, two(studio))
    (found,) = studio.pack.module("nodes.host_comfy.scene.recording_clip").text_positions(positive)
    assert found.find(NAMES) == [(2,), (6, 7, 8)]  # 0 is the start of the text
    assert found.length == positive[0][0].shape[1] == 77


def test_sdxl_in_several_chunks(studio):
    long = "very " * 100 + PROMPT
    _, positive, *_ = on_sdxl(studio, two(studio), prompt=long)
    (found,) = studio.pack.module("nodes.host_comfy.scene.recording_clip").text_positions(positive)
    (cat, bear) = found.find(NAMES)
    assert found.length == 154 and 77 < cat[0] < bear[0] < 154 and len(bear) == 3


def on_flux(flux, scene, **inputs):
    loaded = {"model": flux.loaded.model, "clip": flux.loaded.clip, "vae": flux.base.vae}
    settings = {"prompt": PROMPT, "width": 192, "height": 128}
    return flux.pack.run("RelateApplyScene", scene=scene, **{**loaded, **settings, **inputs})


def test_dreamo_is_tried_before_kontext_and_named_by_placeholders(flux, studio):
    *_, prompt, references = on_flux(flux, two(studio), wording="references")
    assert prompt == "a cat from [ref#1] is hugging a plushie bear from [ref#2]"
    assert len(references) == 2 and references[0].shape[1] % 16 == 0


def test_dreamo_without_its_clip_says_image_1(flux, studio):
    prompt = on_flux(flux, two(studio), wording="references", clip=flux.base.clip)[4]
    assert prompt == "a cat from image 1 is hugging a plushie bear from image 2"


def test_dreamo_is_reference_image_and_apply_references(flux, studio):
    model, positive, *_ = on_flux(flux, two(studio), strength=0.0, wording="as written", reference_size=0.0625)
    first, second = images()
    references = flux.references({"image": first}, {"image": second})
    positive_by_hand = (
        importlib.import_module("comfy_extras.nodes_flux").FluxGuidance.execute(flux.text(PROMPT), 4.5).args[0]
    )
    by_hand, positive_by_hand = flux.apply(references, positive=positive_by_hand)
    assert torch.equal(flux.ksample(model, positive), flux.ksample(by_hand, positive_by_hand))
    assert same(list(positive[0][1]["reference_latents"]), positive_by_hand[0][1]["reference_latents"])


def test_dreamo_steers_by_the_boxes(flux, studio):
    pictures = {}
    for strength in (0.0, 3.0):
        model, positive, *_ = on_flux(flux, two(studio), strength=strength, wording="as written")
        pictures[strength] = flux.ksample(model, positive)
    assert not torch.equal(pictures[0.0], pictures[3.0])
