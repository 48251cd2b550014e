"""Subject adapters with more or fewer parts than the published one, and scenes that lack something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.host.pictures import photograph
from tests.host.test_subject_adapter import (
    CONTEXT,
    EMBEDDING,
    HEAD,
    IMAGE,
    SUBJECTS,
    TOKENS,
    apply,
    fused,
    fused_with_clip,
)

WIDTH_L, WIDTH_G = 24, 40


@pytest.fixture(scope="module")
def build(pack, tiny_sdxl, tmp_path_factory):
    """An adapter of the tiny SDXL with parts of the config changed, through a file."""
    files = pack.module("core.subject.files")
    layout = pack.module("nodes.host_comfy.sdxl.models").unet_layout(tiny_sdxl.model)
    convolution = tiny_sdxl.model.model.diffusion_model.input_blocks[0][0]

    def make(channels: int = 4, which: str = "all", text: dict | None = None, **changes):
        every = {site.diffusers.removesuffix(".attn2"): site.width for site in layout.sites()}
        blocks = pack.module("core.subject.blocks").chosen_blocks(every, which)
        config = files.SubjectAdapterConfig(
            IMAGE, EMBEDDING, CONTEXT, 32, TOKENS, (EMBEDDING, WIDTH_L), blocks, HEAD, word_2=(EMBEDDING, WIDTH_G)
        )
        config = replace(config, input_channels=channels + 1, **changes)
        torch.manual_seed(7)
        module = files.SubjectAdapter(config)
        for parameter in module.parameters():
            parameter.data = torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0)
        names = module.file_keys()
        state = {names[key]: value for key, value in module.state_dict().items()} | (text or {})
        state["unet.conv_in.weight"] = torch.randn(convolution.weight.shape[0], channels + 1, 3, 3)
        state["unet.conv_in.bias"] = torch.zeros(convolution.weight.shape[0])
        path = tmp_path_factory.mktemp("relate") / "parts.safetensors"
        files.save_subject_adapter(path, state, config, {})
        return pack.module("nodes.host_comfy.subject.loader").load(str(path))

    return make


@pytest.fixture
def scene(studio):
    return studio.scene(*({"image": photograph(64 + 16 * i, 64), **words} for i, words in enumerate(SUBJECTS)))


def test_object_tokens_are_projected_once_a_run(studio, scene, build):
    adapter, projected, acted = build(), [], []
    adapter.patcher.model.proj.register_forward_hook(lambda *_: projected.append(1))
    adapter.patcher.model.fusers[0].register_forward_hook(lambda *_: acted.append(1))
    model = apply(studio, scene, adapter)
    studio.sample(model, steps=3)
    assert len(projected) == 1 and len(acted) == 3
    studio.sample(model, steps=2, seed=5)
    assert len(projected) == 1


def test_a_word_goes_into_both_text_encoders(studio, scene, build):
    both = fused(studio, scene, build())[0][0]
    plain = studio.text("a dog and a cat on the beach, the dog is sks, the cat is sks")[0][0]
    changed = (both != plain).any(dim=(0, 1))
    assert changed[:WIDTH_L].any() and changed[WIDTH_L:].any()


@pytest.mark.parametrize("which", ["first", "up"])
def test_an_adapter_in_half_of_the_blocks_acts(studio, scene, build, which):
    adapter = build(which=which)
    assert len(adapter.config.blocks) == 4
    picture = studio.sample(apply(studio, scene, adapter))
    assert picture.isfinite().all() and not torch.equal(picture, studio.sample())


@pytest.mark.parametrize("prompt", ["a dog and a cat", "a sks dog and a cat"])  # the word of many other LoRAs
def test_without_fused_words_the_prompt_is_encoded_as_it_stands(studio, scene, build, prompt):
    words = fused(studio, scene, build(fused_words=False), prompt)
    assert torch.equal(words[0][0], studio.text(prompt)[0][0])


def test_without_coordinates_object_tokens_do_not_know_where_subjects_are(studio, scene, build, pack):
    encoders = pack.module("nodes.host_comfy.subject.encoders")
    moved = studio.scene(
        *(
            {"image": photograph(64 + 16 * i, 64), **words, "box": (0.1, 0.1, 0.3, 0.3)}
            for i, words in enumerate(SUBJECTS)
        )
    )
    for coordinates in (True, False):
        adapter = build(coordinates=coordinates)
        tokens = [encoders.object_tokens(each, studio.base.clip_vision, adapter) for each in (scene, moved)]
        assert torch.equal(*tokens) != coordinates


def test_trained_weights_of_both_text_encoders_are_patched_into_a_clone(studio, scene, build):
    biases = {
        f"{prefix}.text_model.final_layer_norm.bias": torch.full((width,), 3.0)
        for prefix, width in (("text_encoder", WIDTH_L), ("text_encoder_2", WIDTH_G))
    }
    before = studio.text("a dog")[0][0]
    trained, plain = (fused(studio, scene, build(text=text)) for text in (biases, None))
    assert not torch.equal(trained[0][1]["pooled_output"], plain[0][1]["pooled_output"])  # of the second one
    assert torch.equal(studio.text("a dog")[0][0], before)


def test_the_clip_for_the_empty_text_is_the_trained_one(studio, scene, build):
    """In training the branches without a prompt are encoded by the encoder that is trained."""
    bias = {"text_encoder.text_model.encoder.layers.0.mlp.fc2.bias": torch.full((WIDTH_L,), 2.0)}
    assert fused_with_clip(studio, scene, build())[1] is studio.base.clip  # nothing of it is trained
    _, clip = fused_with_clip(studio, scene, build(text=bias))
    _, plain = fused_with_clip(studio, scene, build(text=bias, fused_words=False), "a dog")
    with torch.inference_mode():
        empty, again = (one.encode_from_tokens_scheduled(one.tokenize(""))[0][0] for one in (clip, plain))
    assert torch.equal(empty, again) and not torch.equal(empty, studio.text("")[0][0])


def test_the_window_is_the_part_of_the_schedule_in_which_adapters_act(studio, scene, build):
    for window, early in (({"end_at": 0.5}, True), ({"start_at": 0.5}, False)):
        model = apply(studio, scene, build(), **window)
        subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
        acted, rows = {}, subjects._rows

        def watched(batch, options, acted=acted, rows=rows):
            found = rows(batch, options)
            acted[float(options["sigmas"].max())] = bool(found)
            return found

        subjects._rows = watched
        studio.sample(model, steps=4)
        inside, outside = ([sigma for sigma, did in acted.items() if did == flag] for flag in (True, False))
        assert inside and outside
        assert (min(inside) > max(outside)) if early else (max(inside) < min(outside))


def test_object_tokens_go_to_the_device_with_the_model(studio, scene, build):
    model = apply(studio, scene, build())
    subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
    assert subjects.to(torch.float16).objects.dtype == torch.float32
    tokens = subjects.objects
    model.model_patches_to(torch.device("meta"))
    assert subjects.objects.device.type == "meta"
    subjects.objects = tokens  # ComfyUI moves them once more when it drops the model, which meta tensors refuse


def test_words_stand_in_the_order_of_subjects_and_patches_come_without_the_class_token(studio, scene, build, pack):
    encoders = pack.module("nodes.host_comfy.subject.encoders")
    first, second = torch.zeros(WIDTH_L), torch.ones(WIDTH_L)
    ((one, _), (plain, _), (two, weight)) = encoders._with_words([[(9, 1.0), (5, 1.0), (9, 0.5)]], [first, second], 9)[
        0
    ]
    assert one is first and two is second and (plain, weight) == (5, 0.5)

    class Vision:
        model = torch.nn.Identity()
        hidden = torch.arange((TOKENS + 1) * IMAGE).float().view(1, TOKENS + 1, IMAGE)

        def encode_image(self, image, crop):
            self.seen = image
            return {"last_hidden_state": self.hidden, "image_embeds": torch.ones(1, EMBEDDING)}

    vision = Vision()
    features = encoders.encode_photograph(scene.subjects[1], vision, build())
    assert torch.equal(features.patches, vision.hidden[0, 1:]) and vision.seen.shape == (1, 80, 80, 3)


def test_subjects_without_boxes_may_be_anywhere(studio, build):
    """A Subject's box is the whole picture until one is drawn: the mask is zero everywhere, as for "all is subject"."""
    scene = studio.scene(*({"image": photograph(64, 64), "name": words["name"]} for words in SUBJECTS))
    model = apply(studio, scene, build())
    subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
    h = torch.zeros(1, studio.base.model.model.diffusion_model.input_blocks[0][0].out_channels, 8, 8)
    with torch.inference_mode():
        assert torch.equal(subjects.add_location(h, {"block": ("input", 0), "cond_or_uncond": [0]}), h)
    assert studio.sample(model).isfinite().all()


def test_masks_of_other_sizes_are_scaled_and_of_other_numbers_refused(studio, build):
    image, mask = photograph(64, 64), torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    large = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    results = [
        fused(studio, studio.scene({"image": image, "mask": each, "name": "dog"}), build(), "a dog")[0][0]
        for each in (mask, large, torch.ones(1, 64, 64))
    ]
    torch.testing.assert_close(results[0], results[1], atol=0.5, rtol=0)
    assert (results[0] - results[1]).abs().mean() < (results[0] - results[2]).abs().mean()
    with pytest.raises(ValueError, match="mask: expected one mask, or one for each of the 1 pictures"):
        studio.scene({"image": image, "mask": torch.ones(3, 64, 64), "name": "dog"})


def test_an_adapter_of_other_latents_is_refused(studio, scene, build):
    with pytest.raises(ValueError, match="0 blocks do not match .another number of latent channels."):
        apply(studio, scene, build(channels=16))


def test_the_placeholder_as_a_part_of_another_word_is_named(studio, pack):
    encoders = pack.module("nodes.host_comfy.subject.encoders")
    number = encoders._placeholder(studio.base.clip, "l", "sks")
    chunks = [[(number, 1.0), (5, 1.0), (number, 1.0)]]
    with pytest.raises(ValueError, match="the adapter's placeholder 2 times for 1 subjects, as a part of another word"):
        encoders._with_words(chunks, [torch.zeros(WIDTH_L)], number)
    with pytest.raises(ValueError, match="too long for the clauses"):
        encoders._with_words(chunks, [torch.zeros(WIDTH_L)] * 3, number)
