"""LoRA files beyond plain pairs: every part is applied or named, and alpha is read where each tool writes it."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from core.lora_keys import Alphas, first_names, read_alphas, split_key
from core.relation.lora import load_relation, parse_lora_keys
from tests.unit.core.relation.test_lora import RANK, SMALL, pairs, spelled  # noqa: F401 (a fixture)

MODULE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
ADDRESS = ("mid_block.attentions.0.transformer_blocks.0.attn2", "to_q")


@pytest.mark.parametrize(("key", "module", "role"), [
    ("unet.a.to_q.lora.down.weight", "a_to_q", "down"), ("unet.a.to_q.lora_linear_layer.up.weight", "a_to_q", "up"),
    ("lora_unet_a_to_q.lora_down.weight", "a_to_q", "down"), ("lycoris_a_to_q.lora_up.weight", "a_to_q", "up"),
    ("lycoris_unet_a_to_q.lora_mid.weight", "a_to_q", "mid"), ("lora_unet_a.diff_b", "a", "diff_b"),
    ("base_model.model.a.to_q.lora_A.weight", "a_to_q", "down"),
    ("a.to_q.lora_B.default.weight", "a_to_q", "up"), ("a.to_q.lora_B.bias", "a_to_q", "bias"),
    ("a.to_q.lora_magnitude_vector", "a_to_q", "magnitude"),
    ("unet.a.processor.to_out_lora.up.weight", "a_to_out", "up"),
    ("a.to_q.lora_magnitude_vector.default.weight", "a_to_q", "magnitude"), ("lora_unet_a.alpha", "a", "alpha"),
    ("lora_unet_a.dora_scale", "a", "dora_scale"), ("lora_unet_a.diff", "a", "diff"),
    ("lora_unet_a.w_norm", "a", "w_norm"), ("lora_unet_a.hada_w1_a", "a", "hada_w1_a"),
    ("unet.base_model.model.a.to_q.lora_A.weight", "a_to_q", "down"), ("unet.a.to_q.lora.alpha", "a_to_q", "alpha"),
    ("lora_unet_a.lokr_w2", "a", "lokr_w2"), ("a.to_out.0.bias", "a_to_out_0", "bias"),
])  # fmt: skip
def test_keys_of_every_tool(key, module, role):
    found = split_key(key)
    assert (found.module, found.role, found.text_encoder) == (module, role, False)


@pytest.mark.parametrize("key", [
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "lora_te_text_model_encoder_layers_0.alpha",
    "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
    "text_encoder.text_model.x.lora_A.weight", "lycoris_te2_x.lora_up.weight", "text_encoders.clip_l.x.lora_up.weight",
    "base_model.model.text_model.encoder.layers.0.q_proj.lora_A.weight", "te1_x.lora_up.weight",
])  # fmt: skip
def test_keys_of_text_encoders(key):
    assert split_key(key).text_encoder


@pytest.mark.parametrize("key", ["a.weight", "alpha", "dreamo_task_embedding.weight", "", "tensor.transformer_blocks"])
def test_other_keys(key):
    assert split_key(key) is None


def test_the_first_names_and_how_many_more():
    assert [first_names("abcd"[:count]) for count in (0, 1, 3, 4)] == ["", "a", "a, b, c", "a, b, c and 1 more"]


def kohya(pairs):  # noqa: F811
    return spelled(pairs, "kohya")


def test_dora_and_further_parts_stay_with_their_pair(pairs):  # noqa: F811
    state = kohya(pairs) | {
        f"{MODULE}.dora_scale": torch.ones(16, 1),
        f"{MODULE}.lora_mid.weight": torch.eye(RANK),
        f"{MODULE}.diff_b": torch.ones(16),
    }
    lora = parse_lora_keys(state, SMALL, "file", {})
    assert lora.left_out == () and set(lora.beside) == {ADDRESS} and lora.remarks() == []
    assert lora.report() == "16 of 16 pairs at 4 of 4 sites, 1 of them DoRA"
    given = lora.state()
    assert all(torch.equal(given[key], value) for key, value in state.items())


def test_pefts_magnitudes(pairs):  # noqa: F811
    key = "base_model.model." + ".".join(ADDRESS) + ".lora_magnitude_vector"
    state = spelled(pairs, "peft") | {key: torch.ones(16)}
    lora = parse_lora_keys(state, SMALL, "file", {})
    assert torch.equal(lora.magnitudes[ADDRESS], torch.ones(16)) and lora.left_out == ()
    column = parse_lora_keys(state | {key: torch.ones(16, 1)}, SMALL, "file", {})
    assert torch.equal(column.magnitudes[ADDRESS], torch.ones(16))
    state = {key: value[:3] if "magnitude" in key else value for key, value in state.items()}
    with pytest.raises(ValueError, match="to_q has 3 magnitudes, expected 16"):
        parse_lora_keys(state, SMALL, "file", {})


def test_what_is_not_applied_is_called_what_it_is(pairs):  # noqa: F811
    state = kohya(pairs) | {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 4),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(2.0),
        "unet." + ".".join(ADDRESS) + ".lora_B.bias": torch.zeros(16),
        "bundle_emb.fox.clip_l": torch.zeros(2, 4),
        "lora_unet_mid_block_resnets_0_norm1.w_norm": torch.zeros(4),
        f"{MODULE}.diff": torch.zeros(16, 16),
    }
    remarks = parse_lora_keys(state, SMALL, "file", {}).remarks()
    assert [remark.split(":")[0] for remark in remarks] == [
        "2 tensors of the text encoders (ComfyUI's Load LoRA applies them) are not applied",
        "1 tensors of the biases that the pairs were trained with are not applied",
        "1 tensors of the textual inversions bundled with the LoRA (put them into models/embeddings) are not applied",
        "1 modules have a pair and a whole difference (diff); ComfyUI's loader applies the difference only",
        "1 modules are no text cross-attentions of this model and were left out",
    ]


def test_adapters_of_another_kind_are_handed_on(pairs):  # noqa: F811
    """LoHa and whole differences are ComfyUI's to apply; a bias alone is no relation."""
    state = {f"{MODULE}.hada_w1_a": torch.zeros(16, 2), f"{MODULE}.alpha": torch.tensor(2.0)}
    lora = parse_lora_keys(state, SMALL, "file", {})
    assert lora.pairs == {} and lora.addresses == {ADDRESS} and set(lora.state()) == set(state)
    assert lora.report() == "0 of 16 pairs at 1 of 4 sites, 1 modules of another kind than pairs"
    whole = parse_lora_keys({f"{MODULE}.diff": torch.zeros(16, 16)}, SMALL, "file", {})
    assert whole.addresses == {ADDRESS} and whole.remarks() == []
    with pytest.raises(ValueError, match="0 of 4 text cross-attentions"):
        parse_lora_keys({f"{MODULE}.bias": torch.zeros(16), f"{MODULE}.alpha": torch.tensor(2.0)}, SMALL, "file", {})


NAN, THREE, ONE = torch.tensor(float("nan")), torch.ones(3), torch.ones(())


@pytest.mark.parametrize(
    ("part", "value"),
    [("alpha", NAN), ("alpha", THREE)]  # one number is what alpha should be
    + [(f"lora_{half}.weight", value) for half in ("down", "up") for value in (NAN, THREE, ONE)],
)
def test_parts_of_an_odd_shape_are_faults(pairs, part, value):  # noqa: F811
    with pytest.raises(ValueError, match="1 of 16 pairs do not fit this model: .*to_q"):
        parse_lora_keys(kohya(pairs) | {f"{MODULE}.{part}": value}, SMALL, "file", {})


DOWN, UP, DIFF = {"lora_down.weight": (2, 16)}, {"lora_up.weight": (16, 2)}, {"diff": (16, 16)}


@pytest.mark.parametrize(("parts", "fault"), [
    (DOWN, "to_q has no up"), (UP, "to_q has no down"),
    (DIFF | DOWN, "to_q has no up"), (DIFF | UP, "to_q has no down"),
    (UP | {"lora_down.weight": (3, 16)}, r"to_q is \(16, 2\) x \(3, 16\), expected \(16, r\) x \(r, 16\)"),
])  # fmt: skip
def test_what_is_no_pair_alone_is_a_fault(parts, fault):
    state = {f"{MODULE}.{part}": torch.zeros(shape) for part, shape in parts.items()}
    with pytest.raises(ValueError, match=f"1 of 1 pairs do not fit this model: .*{fault}"):
        parse_lora_keys(state, SMALL, "file", {})


def test_the_first_three_faults_are_shown_and_the_rest_is_counted(pairs):  # noqa: F811
    state = kohya(pairs)
    halves = [key for key in state if key.endswith("up.weight")]
    for count, more in ((3, None), (4, "; and 1 more.")):
        with pytest.raises(ValueError, match=f"{count} of 16 pairs do not fit") as error:
            parse_lora_keys(
                {key: tensor for key, tensor in state.items() if key not in halves[:count]}, SMALL, "file", {}
            )
        assert str(error.value).count("has no up") == 3 and (more or ".") in str(error.value)
        assert ("more" in str(error.value)) == (more is not None) and "It was made for" not in str(error.value)
    with pytest.raises(ValueError, match=r"to_k is \(16, 2\) x \(\), expected"):
        parse_lora_keys(state | {f"{MODULE.replace('to_q', 'to_k')}.lora_down.weight": ONE}, SMALL, "file", {})


def test_an_alpha_without_a_pair_is_a_fault(pairs):  # noqa: F811
    state = {key: tensor for key, tensor in kohya(pairs).items() if not key.startswith(f"{MODULE}.")}
    with pytest.raises(ValueError, match="1 of 16 pairs do not fit this model: .*to_q has no down and no up"):
        parse_lora_keys(state | {f"{MODULE}.alpha": ONE}, SMALL, "file", {})


def adapter(**given):
    return {"r": RANK, "lora_alpha": 2 * RANK, "peft_type": "LORA", **given}


def scale(path):
    """alpha / r of the first pair."""
    pair = load_relation(path, SMALL).pairs[ADDRESS]
    return pair.alpha / pair.down.shape[0]


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in adapter().items()})},
        {
            "lora_adapter_metadata": json.dumps(
                {
                    **{f"text_encoder.{key}": value for key, value in adapter(lora_alpha=99).items()},
                    **{f"unet.{key}": value for key, value in adapter().items()},
                }
            )
        },
        {"lora_adapter_metadata": json.dumps(adapter())},
        {"ss_network_alpha": "4"},
        {"ss_network_alpha": "4.0"},
        {"lora_alpha": "4"},
    ],
    ids=["diffusers", "diffusers, with a text encoder", "peft", "kohya", "kohya, a fraction", "plain"],
)
def test_alpha_in_the_metadata(pairs, tmp_path, metadata):  # noqa: F811
    save_file(spelled(pairs, "authors"), tmp_path / "x.safetensors", metadata=metadata)
    assert scale(tmp_path / "x.safetensors") == 2.0
    assert "alpha from its metadata" in load_relation(tmp_path / "x.safetensors", SMALL).report()


@pytest.mark.parametrize("metadata", [
    {}, {"ss_network_alpha": "None"}, {"ss_network_alpha": "nan"}, {"lora_adapter_metadata": "[]"},
    {"lora_adapter_metadata": "{"}, {"lora_adapter_metadata": '{"r": 4, "unet.r": 4}'},
    {"ss_network_alpha": "0"}, {"alpha": "4", "format": "relate/1"},
])  # fmt: skip
def test_without_a_usable_alpha_the_scale_is_one(pairs, tmp_path, metadata):  # noqa: F811
    """Our own files fold alpha into the matrices where they have no alpha keys."""
    save_file(spelled(pairs, "authors"), tmp_path / "x.safetensors", metadata=metadata)
    assert scale(tmp_path / "x.safetensors") == 1.0


def test_alpha_in_the_tensors_is_before_all_others(pairs, tmp_path):  # noqa: F811
    state = kohya(pairs)
    state |= {
        key.replace("lora_down.weight", "alpha"): torch.tensor(float(RANK))
        for key in kohya(pairs)
        if "lora_down" in key
    }
    save_file(state, tmp_path / "x.safetensors", metadata={"ss_network_alpha": "8"})
    assert scale(tmp_path / "x.safetensors") == 1.0
    assert "alpha from" not in load_relation(tmp_path / "x.safetensors", SMALL).report()
    for lacking in (f"{MODULE}.alpha", next(iter(key for key in state if key.endswith(".alpha")))):
        save_file({k: v for k, v in state.items() if k != lacking}, tmp_path / "x.safetensors", {"lora_alpha": "8"})
        assert "alpha from its metadata (lora_alpha)" in load_relation(tmp_path / "x.safetensors", SMALL).report()


def test_pefts_config_beside_the_file(pairs, tmp_path):  # noqa: F811
    path = tmp_path / "adapter_model.safetensors"
    save_file(spelled(pairs, "peft"), path)
    for config, expected in [
        (adapter(), 2.0), (adapter(use_rslora=True), 2 * math.sqrt(RANK)),
        (adapter(alpha_pattern={"attn2.to_q": 6}), 3.0), (adapter(alpha_pattern={"attn2.to_k": 6}), 2.0),
        (adapter(alpha_pattern={"^.*[": "x"}), 2.0), (adapter(alpha_pattern=["attn2.to_q"]), 2.0), ({}, 1.0),
        (adapter(alpha_pattern={"^$": 6}), 2.0), (adapter(alpha_pattern={"2.to_q": 6}), 2.0),
    ]:  # fmt: skip
        (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")
        assert scale(path) == pytest.approx(expected)
        said = "alpha from adapter_config.json" in load_relation(path, SMALL).report()
        assert said == (config != {})


def test_a_config_in_a_folder_of_many_files_says_nothing_of_one(pairs, tmp_path):  # noqa: F811
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter()))
    save_file(spelled(pairs, "peft"), tmp_path / "hugging.safetensors")
    assert scale(tmp_path / "hugging.safetensors") == 2.0  # alone with it
    save_file(spelled(pairs, "peft"), tmp_path / "another.safetensors")
    assert scale(tmp_path / "hugging.safetensors") == 1.0
    save_file(spelled(pairs, "peft"), tmp_path / "adapter_model.safetensors")
    assert scale(tmp_path / "adapter_model.safetensors") == 2.0  # the file that peft writes beside it
    assert read_alphas(tmp_path / "hugging.safetensors", {}) == Alphas()


@pytest.mark.parametrize(
    ("keys", "sort"),
    [
        (["transformer.single_blocks.0.linear1.lora_A.weight"], "a LoRA of Flux"),
        (["lora_te1_x.lora_down.weight", "lora_te1_x.alpha"], "a LoRA of text encoders alone"),
        (["lora_unet_down_blocks_0_attn1_to_q.lora_down.weight"], "a LoRA of other modules or of another model"),
        (
            ["lora_te1_x.lora_down.weight", "lora_unet_z.lora_up.weight", "strange", "lora_unet_a.lora_up.weight"],
            r"a LoRA of other modules or of another model \(lora_te1_x, lora_unet_a and 1 more\)",
        ),
    ],
)
def test_a_lora_of_something_else_is_not_sent_where_it_is(keys, sort):
    with pytest.raises(ValueError, match=f"0 of 4 .* By its keys it is {sort}") as error:
        parse_lora_keys({key: torch.zeros(2, 2) for key in keys}, SMALL, "file", {})
    assert "models/loras" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["strange.weight"], "Its keys are of no known LoRA layout."),
        (["vision_model.embeddings.class_embedding"], "By its keys it is a CLIP vision encoder"),
    ],
)
def test_a_file_that_is_no_lora_is_called_what_it_is(keys, said):
    with pytest.raises(ValueError, match=f"0 of 4 .*{said}.* Expected a relation LoRA for"):
        parse_lora_keys({key: torch.zeros(2, 2) for key in keys}, SMALL, "file", {})
