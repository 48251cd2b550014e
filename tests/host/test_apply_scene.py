"""Apply Scene against ComfyUI's own nodes: the same bytes, the golden sizes and texts, and clear refusals."""

import pytest
import torch

from tests.host.scene_studio import FAMILIES, PROMPT, photograph, same, wired_by_hand

MOST = {"longcat": 1, "krea2": 2, "qwen_edit": 3, "qwen_edit_2511": 3, "z_image_omni": 3, "omnigen2": 5, "boogu": 5,
        "joyimage": 6}  # fmt: skip
SCALED_BY_NODE = ("qwen_edit", "qwen_edit_2511", "mage", "boogu", "joyimage")


@pytest.fixture(params=FAMILIES)
def family(request, scenes) -> str:
    if request.param not in scenes.native.NAMES:
        pytest.skip(f"this ComfyUI has no {request.param}")
    return request.param


def pair(scenes, family, sizes=((640, 480), (512, 768)), **inputs):
    images = [photograph(*size, seed=seed) for seed, size in enumerate(sizes)]
    images = images[:1] if family == "longcat" else images
    return images, scenes.scene(*images, **inputs)


def test_detection(scenes, family):
    detection = scenes.pack.module("nodes.host_comfy.scene.detection")
    assert detection.detect_engine(scenes.parts(family).model).name == family.removesuffix("_2511")


def test_strength_0_as_written_is_the_engines_own_wiring_byte_for_byte(scenes, family):
    images, scene = pair(scenes, family)
    made = scenes.apply(family, scene, negative="blurry" if family not in ("kontext", "longcat") else "")
    pictures = images if family in SCALED_BY_NODE else made.references
    if family == "longcat":
        pictures = [scenes.pack.module("nodes.host_comfy.scene.pictures").scaled(images[0], 1.0)]
    positive, negative = wired_by_hand(
        scenes, family, pictures, PROMPT, "blurry" if family not in ("kontext", "longcat") else ""
    )
    assert same(made.positive, positive) and same(made.negative, negative) and made.prompt == PROMPT
    assert same(made.positive, made.positive) and not same(made.positive, made.negative)


def test_kontext_pictures_are_its_own_scaling_byte_for_byte(scenes):
    images, scene = pair(scenes, "kontext")
    theirs = [scenes.core("nodes_flux.FluxKontextImageScale", image)[0] for image in images]
    assert same(scenes.apply("kontext", scene).references, theirs)


def test_the_latent_is_the_models_own_and_empty(scenes, family):
    _, scene = pair(scenes, family)
    batch = 1 if family == "z_image_omni" else 2
    made = scenes.apply(family, scene, width=768, height=512, batch_size=batch)
    channels, factor = (128, 16) if family in ("flux2", "mage") else (16, 8)
    assert made.latent["samples"].shape == (batch, channels, 512 // factor, 768 // factor)
    assert not made.latent["samples"].any()


def test_subjects_of_weight_0_have_no_reference_and_the_rest_keep_their_order(scenes):
    images = [photograph(64, 64, seed=seed) for seed in range(3)]
    scene = scenes.scene(*images, names=("a", "b", "c"), boxes=((0, 0, 1, 1),) * 3, weights=(1.0, 0.0, 1.0))
    made = scenes.apply("flux2" if "flux2" in scenes.native.NAMES else "kontext", scene)
    alone = scenes.apply(
        "flux2" if "flux2" in scenes.native.NAMES else "kontext", scenes.scene(images[0], images[2], names=("a", "c"))
    )
    assert same(made.positive, alone.positive) and len(made.references) == 2


def test_a_scene_of_weights_0_is_text_alone(scenes, family):
    images, scene = pair(scenes, family, weights=(0.0, 0.0))
    made = scenes.apply(family, scene, strength=3.0)
    assert "reference_latents" not in made.positive[0][1] and len(made.references) == 1
    assert made.references[0].shape == (1, 1024, 1024, 3) and bool((made.references[0] == 1).all())


def test_what_the_mask_leaves_out_is_white(scenes):
    mask = torch.zeros(1, 48, 64)
    mask[:, :, :32] = 1
    image = photograph(64, 48) * 0.5
    made = scenes.apply("kontext", scenes.scene(image, mask=mask), reference_size=0.25)
    (reference,) = made.references
    assert float(reference[:, :, reference.shape[2] * 3 // 4 :].min()) == 1 and float(reference[:, :, :100].max()) < 0.6


def test_all_photographs_while_the_limit_lasts(scenes):
    views = torch.cat([photograph(64, 64, seed=seed) for seed in range(3)])
    scene = scenes.scene(views, photograph(64, 64, seed=9))
    made = scenes.apply("qwen_edit", scene, photographs="all", wording="references")
    assert len(made.references) == 3
    assert made.prompt == "A cat from Picture 1 and Picture 2 is hugging a plushie bear from Picture 3."
    assert len(scenes.apply("qwen_edit", scene, photographs="first").references) == 2


def test_the_prompt_names_references_as_the_engine_numbers_them(scenes):
    _, scene = pair(scenes, "qwen_edit")
    assert scenes.apply("qwen_edit", scene, wording="references and places").prompt == (
        "A cat from Picture 1 is hugging a plushie bear from Picture 2. The cat from Picture 1 is on the left and the "
        "plushie bear from Picture 2 is on the right."
    )
    again = scenes.apply("qwen_edit", scene, wording="references").prompt
    assert scenes.apply("qwen_edit", scene, wording="references", prompt=again).prompt == again
    assert scenes.apply("kontext", scene, wording="references").prompt == (
        "A cat from image 1 is hugging a plushie bear from image 2."
    )


def test_a_name_that_is_missing_is_reported_with_what_was_added(scenes, caplog):
    _, scene = pair(scenes, "kontext")
    scenes.apply("kontext", scene, prompt="Two friends hug.", wording="references")
    assert "subject 'cat' is not in the prompt 'Two friends hug.'; added: 'The cat is from image 1.'" in caplog.text


def test_the_inputs_are_not_changed(scenes):
    _, scene = pair(scenes, "omnigen2")
    parts = scenes.parts("omnigen2")
    before = dict(parts.model.model_options["transformer_options"]), list(parts.model.attachments)
    made = scenes.apply("omnigen2", scene, strength=3.0)
    assert made.model is not parts.model and made.model.model is parts.model.model
    assert (dict(parts.model.model_options["transformer_options"]), list(parts.model.attachments)) == before


def sample(scenes, made, **settings):
    """Two steps of ComfyUI's KSampler, guidance 3."""
    settings = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", **settings}
    with torch.inference_mode():
        return scenes.comfy.KSampler().sample(
            made.model, positive=made.positive, negative=made.negative, latent_image=made.latent, **settings
        )[0]["samples"]


def small(scenes, family):
    """A picture of 256 x 192 and references of a few tokens; where a node scales to a megapixel, the VAE to 1/64."""
    size = {"width": 256, "height": 192, "reference_size": 0.0625}
    vae = scenes.parts(family).vae
    if family not in (*SCALED_BY_NODE, "longcat"):
        return size
    return {**size, "vae": scenes.native.PoolingVAE(vae.latent_channels, 64, frames=vae.latent_dim == 3)}


def test_references_are_kept_in_their_boxes_on_both_sides(scenes, family, caplog):
    """Soft and hard steering each draw another picture; every call that carries references knows its layout."""
    key = scenes.pack.module("nodes.host_comfy.references.steer").KEY
    _, scene = pair(scenes, family)
    plain, soft, hard = (
        scenes.apply(family, scene, strength=strength, **small(scenes, family)) for strength in (0.0, 3.0, 20.0)
    )
    for made in (soft, hard):
        assert all(key in entry["model_conds"] for side in (made.positive, made.negative) for _, entry in side)
        assert not any(
            key in entry.get("model_conds", {}) for side in (plain.positive, plain.negative) for _, entry in side
        )
    pictures = [sample(scenes, made) for made in (plain, soft, hard)]
    assert all(torch.isfinite(picture).all() for picture in pictures)
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[1], pictures[2])
    assert "are left as they are" not in caplog.text


def test_an_empty_window_or_whole_boxes_are_the_unsteered_picture_bit_for_bit(scenes):
    _, scene = pair(scenes, "omnigen2", boxes=((0, 0, 1, 1), (0, 0, 1, 1)))
    size = {"width": 128, "height": 128, "reference_size": 0.0625}
    plain = sample(scenes, scenes.apply("omnigen2", scene, **size))
    assert torch.equal(plain, sample(scenes, scenes.apply("omnigen2", scene, strength=3.0, **size)))
    _, halves = pair(scenes, "omnigen2")
    never = scenes.apply("omnigen2", halves, strength=3.0, start_at=0.5, end_at=0.5, **size)
    assert torch.equal(sample(scenes, never), sample(scenes, scenes.apply("omnigen2", halves, **size)))


def test_weights_act_without_strength(scenes):
    _, scene = pair(scenes, "omnigen2", weights=(1.0, 2.0))
    size = {"width": 128, "height": 128, "reference_size": 0.0625}
    _, even = pair(scenes, "omnigen2")
    assert not torch.equal(
        sample(scenes, scenes.apply("omnigen2", scene, **size)), sample(scenes, scenes.apply("omnigen2", even, **size))
    )


def test_batches_and_odd_shapes(scenes, family):
    _, scene = pair(scenes, family, sizes=((333, 127), (64, 500)))
    settings = {**small(scenes, family), "width": 208, "height": 144}
    batch = 1 if family == "z_image_omni" else 2
    made = scenes.apply(family, scene, strength=3.0, batch_size=batch, **settings)
    samples = sample(scenes, made)
    assert samples.shape == (batch, *made.latent["samples"].shape[1:]) or samples.ndim == 5
    assert torch.isfinite(samples).all()
