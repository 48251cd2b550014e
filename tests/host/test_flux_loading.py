"""Load DreamO: LoRAs in every layout merge to the same bits, placeholders become tokens, and what does not fit."""

import pytest
import torch
from safetensors.torch import save_file

from tests.host import flux_studio
from tests.host.flux_studio import fused_lora, split_lora


@pytest.fixture(scope="module")
def flux(pack, comfy, tiny):
    return flux_studio.make(pack, comfy, tiny)


def merged(model) -> dict[str, torch.Tensor]:
    """Weights with all patches in them, by ComfyUI's own arithmetic."""
    import comfy.lora

    weights = model.model.diffusion_model.state_dict()
    found = {}
    for key, patches in model.patches.items():
        name = key.removeprefix("diffusion_model.")
        found[name] = comfy.lora.calculate_weight(patches, weights[name].clone(), key)
    return found


def custom(flux, name, strength=1.0, **inputs):
    none = {f"{each}_lora": "none" for each in ("cfg_distill", "quality_pos", "quality_neg", "sft", "dpo")}
    return flux.load(preset="custom", dreamo_lora=name, dreamo_strength=strength, **none, **inputs).model


@pytest.mark.parametrize("infix", ["_processor_", ".processor.", "_"])
def test_fused_and_split_files_merge_to_the_same_bits(flux, base_directory, infix):
    loras = base_directory / "models" / "loras"
    save_file(fused_lora(infix), loras / "one_fused.safetensors")
    save_file(split_lora(fused_lora()), loras / "one_split.safetensors")
    fused, split = (merged(custom(flux, f"one_{layout}.safetensors", 0.7)) for layout in ("fused", "split"))
    assert set(fused) == set(split) and len(fused) == 2 * 4 + 2 * 2
    assert all(torch.equal(fused[name], split[name]) for name in fused)


def test_a_merge_is_w_plus_b_a(flux, base_directory):
    lora = fused_lora()
    save_file(lora, base_directory / "models" / "loras" / "by_hand.safetensors")
    found, weights = merged(custom(flux, "by_hand.safetensors")), flux.base.model.model.diffusion_model.state_dict()
    delta = {part: lora[f"single_blocks_1_processor_qkv_lora.{part}.weight"] for part in ("up", "down")}
    wanted = weights["single_blocks.1.linear1.weight"].clone()
    wanted[:192] += delta["up"] @ delta["down"]
    torch.testing.assert_close(found["single_blocks.1.linear1.weight"], wanted, atol=1e-6, rtol=0)


def test_presets_bring_their_loras_with_the_published_strengths(flux, pack):
    chosen = pack.module("nodes.dreamo").chosen_loras
    files = [
        "a/dreamo_comfyui.safetensors",
        "dreamo_cfg_distill.safetensors",
        "dreamo_quality_lora_pos.safetensors",
        "dreamo_quality_lora_neg.safetensors",
        "v1.1/dreamo_sft_lora.safetensors",
        "dreamo_dpo_lora.safetensors",
        "flux-turbo.safetensors",
    ]
    assert chosen("v1", False, {"dreamo_strength": 0.3}, files) == [
        (files[0], 1.0),
        (files[1], 1.0),
        (files[2], 0.15),
        (files[3], -0.8),
    ]
    assert chosen("v1.1", True, {}, files) == [
        (files[0], 1.0),
        (files[1], 1.0),
        (files[4], 1.0),
        (files[5], 1.25),
        (files[6], 1.0),
    ]
    assert chosen(
        "custom",
        False,
        {
            "dreamo_strength": 0.3,
            "cfg_distill_lora": "none",
            "sft_lora": "x.safetensors",
            "quality_pos_strength": 0.0,
            "quality_neg_strength": 0.0,
            "dpo_lora": "none",
        },
        files,
    ) == [(files[0], 0.3), ("x.safetensors", 1.0)]
    with pytest.raises(
        ValueError,
        match=r"preset v1.1: 2 LoRA files are not in models/loras: sft \(dreamo_sft_lora"
        r".safetensors\); dpo \(dreamo_dpo_lora.safetensors\). Put them there",
    ):
        chosen("v1.1", False, {}, files[:4])


def test_strength_0_leaves_the_model_unpatched(flux):
    assert custom(flux, "dreamo.safetensors", 0.0).patches == flux.base.model.patches == {}


def test_the_model_and_clip_given_are_not_changed(flux):
    assert flux.base.model.attachments == {} and flux.base.model.patches == {}
    tokens = flux.base.clip.tokenize("a [ref#1]")["t5xxl"][0]
    assert [token for token, _ in tokens[:8]] == [3, 9, 784, 60, 89, 4663, 536, 908]


@pytest.mark.parametrize(("fault", "message"), [
    ({"dreamo_lora": "relation_kohya.safetensors"}, "pairs found their weights in this model; it has no"),
    ({"dreamo_lora": "wide_flux.safetensors"}, "12 pairs do not fit this model: .*expected .* belong to FLUX.1-dev"),
    ({"dreamo_lora": "flux-turbo.safetensors", "embeddings": "ms_adapter.safetensors"},
     "ms_adapter.safetensors: expected DreamO's embeddings"),
])  # fmt: skip
def test_files_that_do_not_fit(flux, fault, message):
    with pytest.raises(ValueError, match=message):
        flux.load(**fault)


def test_a_model_that_is_not_flux(flux, tiny_sdxl):
    with pytest.raises(ValueError, match=r"model: expected a Flux model \(FLUX.1-dev\), got SDXL"):
        flux.load(model=tiny_sdxl.model)
    with pytest.raises(ValueError, match=r"clip: expected Flux's text encoders \(CLIP-L and T5-XXL\), got one without"):
        flux.load(clip=tiny_sdxl.clip)


def test_a_wrapper_in_the_place_of_flux(flux, pack):
    """As nunchaku's, which has no way in for references."""

    class ComfyFluxWrapper(torch.nn.Module):
        pass

    from types import SimpleNamespace

    model = SimpleNamespace(
        model=SimpleNamespace(diffusion_model=ComfyFluxWrapper(), model_config=flux.base.model.model.model_config)
    )
    with pytest.raises(ValueError, match="expected ComfyUI's own Flux, got ComfyFluxWrapper, which takes its place"):
        pack.module("nodes.host_comfy.flux.wrapper").check_flux(model)


def test_embeddings_of_another_width(flux, base_directory):
    tables = {key: torch.cat((value, value), dim=1) for key, value in flux_studio.tables().items()}
    save_file(tables, base_directory / "models" / "relate" / "wide.safetensors")
    with pytest.raises(ValueError, match="wide.safetensors was made for a model of width 128, the model has 64"):
        flux.load(embeddings="wide.safetensors")
    tables = {**flux_studio.tables(), "dreamo_t5_embedding.weight": torch.ones(10, 40)}
    save_file(tables, base_directory / "models" / "relate" / "wide_words.safetensors")
    with pytest.raises(ValueError, match="clip: its T5 has width 32, the placeholders' embeddings 40"):
        flux.load(embeddings="wide_words.safetensors")


def test_embeddings_without_words_leave_the_clip_alone(flux, caplog):
    assert flux.load(embeddings="no_words.safetensors").clip is flux.base.clip
    assert "no_words.safetensors has no T5 table" in caplog.text


# [ref#k] counts from 32100, as the published tokenizer does
SENTENCES = {
    "A woman from [ref#1] and a woman from [ref#2] is walking in the park.":
        [71, 2335, 45, 3, 32100, 11, 3, 9, 2335, 45, 3, 32101, 19, 3214, 16, 8, 2447, 5, 1],
    "a dog [ref#1], a cat [ref#2]": [3, 9, 1782, 3, 32100, 6, 3, 9, 1712, 3, 32101, 1],
    "from[ref#1]x": [45, 32100, 226, 1],
    "a  dog   from [ref#1]  runs": [3, 9, 1782, 45, 3, 32100, 3154, 1],
}  # fmt: skip


def numbers(clip, text):
    """Tokens of a prompt, embeddings as the numbers they stand for; up to the end token."""
    table = flux_studio.tables()["dreamo_t5_embedding.weight"]
    found = []
    for token, _ in clip.tokenize(text)["t5xxl"][0]:
        if torch.is_tensor(token):
            token = 32100 + next(row for row in range(10) if torch.equal(table[row], token))
        found.append(token)
    return found[: found.index(1) + 1]


@pytest.mark.parametrize("text", SENTENCES)
def test_the_published_tokens(flux, text):
    assert numbers(flux.loaded.clip, text) == SENTENCES[text]


@pytest.mark.parametrize("text", ["", "a  dog , runs ", "(a dog:1.3) \\(x\\) [red] <extra_id_3>", "x" * 2000])
def test_a_prompt_without_placeholders_is_comfyuis_own(flux, text):
    assert flux.loaded.clip.tokenize(text) == flux.base.clip.tokenize(text)


def test_all_ten_words_are_tokens(flux):
    text = " ".join([*(f"[ref#{slot}]" for slot in range(1, 10)), "[res]"])
    assert [number for number in numbers(flux.loaded.clip, text) if number >= 32100] == list(range(32100, 32110))
    assert max(numbers(flux.loaded.clip, "[ref#10] [ref#0] [ref#]")) < 32100


def test_weights_in_parentheses_act_on_placeholders(flux):
    pairs = flux.loaded.clip.tokenize("a (fox from [ref#2]:1.4) runs")["t5xxl"][0]
    weights = [weight for token, weight in pairs if torch.is_tensor(token)]
    assert weights == [1.4]
    plain, heavy = (flux.text(text)[0][0] for text in ("a fox from [ref#2] runs", "a (fox from [ref#2]:1.4) runs"))
    assert plain.shape == heavy.shape and not torch.equal(plain, heavy)


def test_an_embedding_stands_exactly_in_its_place(flux):
    """What T5 gets: the table's row at the place that the conditioning tells, and nothing moved."""
    t5 = flux.loaded.clip.cond_stage_model.t5xxl
    tokens = [token for token, _ in flux.loaded.clip.tokenize("a fox from [ref#2] and [ref#2], [ref#7]")["t5xxl"][0]]
    with torch.inference_mode():
        embedded, *_ = t5.process_tokens([tokens], torch.device("cpu"))
    places = flux.text("a fox from [ref#2] and [ref#2], [ref#7]")[0][1]["relate_placeholders"]
    table = flux_studio.tables()["dreamo_t5_embedding.weight"]
    assert len(places[2]) == 2 and len(places[7]) == 1 and set(places) == {2, 7}
    for slot, where in places.items():
        for place in where:
            assert torch.equal(embedded[0, place], table[slot - 1])
    assert embedded.shape[1] == 256 == flux.text("a fox")[0][0].shape[1]


def test_clones_of_the_clip_know_the_placeholders_too(flux, comfy):
    """A LoRA loader, CLIP Set Last Layer and the like clone what they get."""
    twin = flux.loaded.clip.clone().clone()
    one, two = (flux.text(clip=clip)[0] for clip in (flux.loaded.clip, twin))
    assert torch.equal(one[0], two[0]) and one[1]["relate_placeholders"] == two[1]["relate_placeholders"] != {}
    assert "relate_placeholders" not in flux.text(clip=flux.base.clip)[0][1]


@pytest.mark.parametrize("records", [False, True], ids=["placeholders", "positions too"])
def test_comfyuis_hooks_take_the_clip(pack, flux, comfy, records):
    """Set CLIP Hooks asks newer ComfyUI's clone for a way of loading."""
    import comfy.hooks
    import comfy_extras.nodes_hooks as hooks

    clip = flux.loaded.clip
    if records:
        clip = pack.module("nodes.host_comfy.scene.recording_clip").with_text_positions(clip)
    (hooked,) = hooks.SetClipHooks().apply_hooks(clip, False, True, comfy.hooks.HookGroup())
    entry = flux.text("a fox [ref#1]", clip=hooked)[0][1]
    assert entry["relate_placeholders"] and ("relate_text" in entry) == records


def test_loading_twice_keeps_one_set_of_words(flux):
    again = flux.load(model=flux.loaded.model, clip=flux.loaded.clip)
    assert numbers(again.clip, "x [ref#1]") == numbers(flux.loaded.clip, "x [ref#1]")
