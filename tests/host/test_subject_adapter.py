"""Subject-Diffusion on ComfyUI's own tiny SDXL: laws, the golden adapter, DualCFGGuider, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors import safe_open

from core.checkpoint import save
from tests import golden_tensors
from tests.host.pictures import photograph

SUBJECTS = ({"name": "dog", "box": (0.0, 0.2, 0.5, 1.0)}, {"name": "cat", "box": (0.5, 0.2, 1.0, 1.0)})
WORD, CONTEXT, TOKENS, IMAGE, EMBEDDING, HEAD = 40, 64, 4, 48, 20, 32


@pytest.fixture(scope="module")
def files(pack):
    return pack.module("core.subject.files")


@pytest.fixture(scope="module")
def adapter_path(pack, files, tiny_sdxl, tmp_path_factory):
    """An adapter for the tiny SDXL with open gates, five input channels and trained keys and values."""
    import comfy.model_management

    comfy.model_management.unload_all_models()  # a sampled model keeps its patched weights until it has to go
    layout = pack.module("nodes.host_comfy.sdxl.models").unet_layout(tiny_sdxl.model)
    blocks = {site.diffusers.removesuffix(".attn2"): site.width for site in layout.sites()}
    config = files.SubjectAdapterConfig(
        IMAGE, EMBEDDING, CONTEXT, 32, TOKENS, (EMBEDDING, WORD), blocks, HEAD, input_channels=5
    )
    torch.manual_seed(7)
    module = files.SubjectAdapter(config)
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0)
    state, names = {}, list(blocks)
    for key, value in module.state_dict().items():
        if key.startswith("fusers."):
            _, index, rest = key.split(".", 2)
            key = f"unet.{names[int(index)]}.fuser.{rest}"
        state[key] = value
    for block, width in blocks.items():
        state |= {f"unet.{block}.attn2.{part}.weight": 0.1 * torch.randn(width, CONTEXT) for part in ("to_k", "to_v")}
    convolution = tiny_sdxl.model.model.diffusion_model.input_blocks[0][0]
    extra = torch.randn(convolution.weight.shape[0], 1, 3, 3)
    state |= {
        "unet.conv_in.weight": torch.cat((convolution.weight.detach(), extra), 1),
        "unet.conv_in.bias": convolution.bias.detach().clone(),
    }
    path = tmp_path_factory.mktemp("relate") / "subject.safetensors"
    save(path, state, {"kind": "subject_adapter", "base": "tiny", "head_width": str(HEAD)})
    return path


@pytest.fixture(scope="module")
def adapter(pack, adapter_path):
    return pack.module("nodes.host_comfy.subject.loader").load(str(adapter_path))


@pytest.fixture
def scene(studio):
    return studio.scene(
        *(
            {
                "image": photograph(64 + 16 * i, 64)[None]
                if photograph(4, 4).ndim == 3
                else photograph(64 + 16 * i, 64),
                **subject,
            }
            for i, subject in enumerate(SUBJECTS)
        )
    )


def apply(studio, scene, adapter, model=None, **inputs):
    base = studio.base
    return studio.pack.run(
        "RelateApplySubjectAdapter",
        model=base.model if model is None else model,
        scene=scene,
        clip_vision=base.clip_vision,
        adapter=adapter,
        **inputs,
    )


def fused_with_clip(studio, scene, adapter, prompt="a dog and a cat on the beach"):
    return studio.pack.run(
        "RelateEncodeFusedPrompt",
        clip=studio.base.clip,
        clip_vision=studio.base.clip_vision,
        scene=scene,
        adapter=adapter,
        prompt=prompt,
    )


def fused(studio, scene, adapter, prompt="a dog and a cat on the beach"):
    return fused_with_clip(studio, scene, adapter, prompt)[0]


def test_weight_zero_and_an_empty_window_are_the_untouched_picture_bit_for_bit(studio, scene, adapter):
    plain = studio.sample()
    assert torch.equal(studio.sample(apply(studio, scene, adapter, weight=0.0)), plain)
    assert torch.equal(studio.sample(apply(studio, scene, adapter, start_at=0.5, end_at=0.5)), plain)
    assert not torch.equal(studio.sample(apply(studio, scene, adapter)), plain)
    assert torch.equal(studio.sample(), plain)  # the model that came in is as it was


def test_closed_gates_without_a_mask_or_trained_weights_are_the_base(studio, scene, adapter_path, pack, tmp_path):
    with safe_open(adapter_path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    state = {
        key: torch.zeros_like(value) if "alpha_" in key else value
        for key, value in state.items()
        if ".attn2." not in key and "conv_in" not in key
    }
    save(tmp_path / "closed.safetensors", state, metadata)
    closed = pack.module("nodes.host_comfy.subject.loader").load(str(tmp_path / "closed.safetensors"))
    assert torch.equal(studio.sample(apply(studio, scene, closed)), studio.sample())


def test_the_mask_is_the_fifth_channel_of_the_convolution(studio, scene, adapter):
    """With only the location acting, the first block's output is that of the five-channel convolution."""
    model = apply(studio, scene, adapter)
    subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
    convolution = studio.base.model.model.diffusion_model.input_blocks[0][0]
    latent = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = subjects.add_location(convolution(latent), {"block": ("input", 0), "cond_or_uncond": [0]})
        mask = torch.ones(1, 1, 8, 12)
        mask[..., 2:, :] = 0  # rows 20 % and more of the height: both boxes
        weight = adapter.changes["unet.conv_in.weight"]
        whole = torch.nn.functional.conv2d(
            torch.cat((latent, mask.expand(2, -1, -1, -1)), 1), weight, convolution.bias, padding=1
        )
    torch.testing.assert_close(ours, whole, atol=1e-5, rtol=0)
    assert subjects.add_location(ours, {"block": ("input", 1)}) is ours
    half = apply(studio, scene, adapter, weight=0.5).model_options["transformer_options"]["patches"]["middle_patch"][0]
    with torch.inference_mode():
        less = half.add_location(convolution(latent), {"block": ("input", 0), "cond_or_uncond": [0]})
        torch.testing.assert_close(less, (ours + convolution(latent)) / 2, atol=1e-5, rtol=0)


def test_trained_keys_and_values_take_the_place_of_the_bases_as_far_as_the_weight_says(studio, scene, adapter):
    own = studio.base.model.model.state_dict()
    patches = apply(studio, scene, adapter, weight=0.5).patches
    for place, block in (
        ("middle_block.1", "mid_block.attentions.0"),
        ("output_blocks.0.1", "up_blocks.0.attentions.0"),
    ):
        for part in ("to_k", "to_v"):
            tail = f"transformer_blocks.0.attn2.{part}.weight"
            key = f"diffusion_model.{place}.{tail}"
            strength, (kind, (difference,)), *_ = patches[key][0]
            assert (strength, kind) == (0.5, "diff")
            torch.testing.assert_close(own[key].float().cpu() + difference, adapter.changes[f"unet.{block}.{tail}"])


def test_without_location_nothing_is_added_to_the_latent(studio, scene, adapter):
    with_mask, without = (apply(studio, scene, adapter, location=flag) for flag in (True, False))
    patches = [model.model_options["transformer_options"]["patches"] for model in (with_mask, without)]
    assert ["input_block_patch" in kinds for kinds in patches] == [True, False]
    assert not torch.equal(studio.sample(with_mask), studio.sample(without))


@torch.inference_mode()
def test_the_golden_adapter_acts_in_a_middle_patch(studio, scene, adapter, files, pack):
    """The authors' gated block, called as ComfyUI calls a middle patch: to 1e-4."""
    tensors, _ = golden_tensors.read("subject_diffusion_public")
    gated = pack.module("core.subject.adapter").GatedAdapter(40, 32, 4, 10)
    gated.load_state_dict(
        {key.removeprefix("gated."): value for key, value in tensors.items() if key.startswith("gated.")}
    )
    attach = pack.module("nodes.host_comfy.subject.attach")
    holder = type("Loaded", (), {"patcher": type("P", (), {"model": type("M", (), {"fusers": [gated]})})})
    rows = [
        attach.AppliedSubjects(
            holder,
            tensors["object_tokens"][row : row + 1],
            torch.zeros(1, 4),
            1.0,
            (0.0, 1.0),
            False,
            {("input", 4, 1): 0},
        )
        for row in range(2)
    ]
    options = {"block": ("input", 4), "block_index": 1, "cond_or_uncond": [0]}
    ours = torch.cat([patch(tensors["hidden"][row : row + 1], options) for row, patch in enumerate(rows)])
    torch.testing.assert_close(ours, tensors["gated_out"], atol=1e-4, rtol=0)
    assert rows[0](tensors["hidden"], {**options, "block_index": 0}) is tensors["hidden"]


def test_the_negative_row_is_untouched_and_the_middle_one_is_not(studio, scene, adapter, comfy):
    """DualCFGGuider's three branches: the adapter acts on positive and middle, never on the negative."""
    import comfy_extras.nodes_custom_sampler as custom

    model = apply(studio, scene, adapter)
    subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
    acted = []
    rows = subjects._rows
    subjects._rows = lambda batch, options: acted.append((len(options["uuids"]), rows(batch, options))) or acted[-1][1]
    text, empty = fused(studio, scene, adapter), studio.text("")
    guider = custom.Guider_DualCFG(model)
    guider.set_conds(text, empty, empty)
    guider.set_cfg(7.5, 1.5)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        guider.sample(
            noise,
            torch.zeros_like(noise),
            __import__("comfy.samplers").samplers.sampler_object("euler"),
            torch.tensor([1.0, 0.5, 0.0]),
            seed=0,
        )
    assert {len(found) for count, found in acted if count == 3} == {2}
    assert subjects._conditionings is None  # nothing of the run is kept


def test_copies_of_regional_prompts_on_the_negative_side_are_untouched(studio, scene, adapter, comfy):
    """ComfyUI copies a conditioning with an area to the other side, with its ``uuid``."""
    import comfy.samplers
    import node_helpers

    model = apply(studio, scene, adapter)
    subjects = model.model_options["transformer_options"]["patches"]["middle_patch"][0]
    acted, rows = [], subjects._rows
    subjects._rows = lambda batch, options: (
        acted.append((options["cond_or_uncond"], rows(batch, options))) or acted[-1][1]
    )
    positive = node_helpers.conditioning_set_values(
        fused(studio, scene, adapter), {"area": (16, 8, 0, 0), "strength": 1.0}
    )
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, studio.text(""))
    guider.set_cfg(3.0)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        guider.sample(
            noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([1.0, 0.0]), seed=0
        )
    assert acted and all(found == [row for row, place in enumerate(places) if place == 0] for places, found in acted)
    assert any(found for _, found in acted)


def test_a_regional_prompt_sees_its_part_of_the_location_mask(studio, scene, adapter, pack, comfy, monkeypatch):
    """The boxes stand in the lower 80 % of the picture: computed on its lower half, nothing is outside of them."""
    import comfy.samplers
    import node_helpers

    model = apply(studio, scene, adapter)
    module, masks = pack.module("nodes.host_comfy.subject.attach"), []
    add = module.mask_addition
    monkeypatch.setattr(module, "mask_addition", lambda mask, weight: masks.append(mask) or add(mask, weight))
    half = node_helpers.conditioning_set_values(studio.text("a dog"), {"area": (8, 16, 8, 0), "strength": 1.0})
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(half, studio.text(""))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        guider.sample(
            noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([1.0, 0.0]), seed=0
        )
    assert masks and all(mask.shape == (1, 1, 8, 16) and not mask.any() for mask in masks)


def test_the_fused_prompt_carries_each_subject_and_swapping_them_changes_it(studio, scene, adapter):
    first = fused(studio, scene, adapter)[0][0]
    swapped = studio.scene(
        *(
            {"image": subject.photographs.movedim(1, -1), **words}
            for subject, words in zip(reversed(scene.subjects), SUBJECTS)
        )
    )
    assert first.shape == fused(studio, swapped, adapter)[0][0].shape
    assert not torch.equal(first, fused(studio, swapped, adapter)[0][0])
    plain = studio.text("a dog and a cat on the beach, the dog is sks, the cat is sks")[0][0]
    assert first.shape == plain.shape and not torch.equal(first, plain)
    begin = 8  # tokens before the first placeholder's clause see none of it: the encoder is causal
    assert torch.equal(first[:, :begin], plain[:, :begin])


def test_batches_and_odd_sizes_work(studio, scene, adapter):
    model = apply(studio, scene, adapter)
    both = studio.sample(model, size=(18, 14), batch=2)
    assert both.shape == (2, 4, 18, 14) and both.isfinite().all()


def test_a_lora_of_the_base_works_beside_it_in_either_order(studio, scene, adapter, comfy):
    """The adapter's own keys and values are told from the base as loaded, not from what a LoRA made of it."""

    def styled(model):
        with torch.inference_mode():
            return comfy.LoraLoaderModelOnly().load_lora_model_only(model, "small_style.safetensors", 1.0)[0]

    before = studio.sample(apply(studio, scene, adapter, styled(studio.base.model)))
    after = studio.sample(styled(apply(studio, scene, adapter)))
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)
    for alone in (apply(studio, scene, adapter), styled(studio.base.model)):
        assert not torch.allclose(after, studio.sample(alone), atol=1e-2)


def test_a_controlnet_works_beside_it(studio, scene, adapter, tiny):
    positive = studio.controlled(tiny.controlnet("small"), "a dog and a cat")
    model = apply(studio, scene, adapter)
    both = studio.sample(model, positive)
    assert both.isfinite().all()
    for alone in (studio.sample(model, studio.text("a dog and a cat")), studio.sample(positive=positive)):
        assert not torch.allclose(both, alone, atol=1e-2)


@pytest.mark.parametrize("change, said", [
    ({"subjects": 3}, "trained with 1 to 2 subjects, got 3"),
    ({"prompt": "a sks dog and a cat"}, "already has the word 'sks'"),
    ({"prompt": "a dog " * 60}, None),
    ({"clip_vision": "other"}, "clip_vision: it gives"),
])  # fmt: skip
def test_bad_input_is_one_message(studio, scene, adapter, tiny, change, said):
    subjects = [
        {"image": photograph(64, 64)[None] if photograph(4, 4).ndim == 3 else photograph(64, 64), **SUBJECTS[i % 2]}
        for i in range(change.get("subjects", 2))
    ]
    inputs = {
        "clip": studio.base.clip,
        "clip_vision": studio.base.clip_vision,
        "adapter": adapter,
        "scene": studio.scene(*subjects),
        "prompt": change.get("prompt", "a dog and a cat"),
    }
    if "clip_vision" in change:
        inputs["clip_vision"] = tiny.clip_vision(width=40)
    if said is None:  # ComfyUI cuts long prompts into chunks, so nothing is lost
        assert studio.pack.run("RelateEncodeFusedPrompt", **inputs)[0][0][0].isfinite().all()
        return
    with pytest.raises(ValueError, match=said):
        studio.pack.run("RelateEncodeFusedPrompt", **inputs)


def test_an_adapter_for_another_base_is_refused(studio, scene, adapter, tiny):
    with pytest.raises(ValueError, match="was trained on tiny, with .* blocks do not match"):
        apply(studio, scene, adapter, model=tiny.model("sdxl"))


def test_a_name_that_the_prompt_lacks_is_told(studio, scene, adapter, caplog):
    with caplog.at_level(logging.WARNING):
        fused(studio, scene, adapter, "a dog on the beach")
    assert "subject 'cat' is not in the prompt" in caplog.text and "'dog' is not" not in caplog.text
