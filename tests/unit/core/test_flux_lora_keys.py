"""Every published layout of LoRAs of Flux, and a clear word for files that are none."""

import pytest
import torch
from safetensors.torch import save_file

from core.flux_lora_keys import load_flux_lora, to_comfy_keys
from core.lora_keys import Alphas


def pair(stem, rank=2, into=6, out=9, names=("down", "up")):
    return {f"{stem}.{names[0]}.weight": torch.ones(rank, into), f"{stem}.{names[1]}.weight": torch.ones(out, rank)}


@pytest.mark.parametrize(("stem", "wanted"), [
    ("double_blocks_3_processor_qkv_lora1", "diffusion_model.double_blocks.3.img_attn.qkv"),
    ("double_blocks.3.processor.qkv_lora1", "diffusion_model.double_blocks.3.img_attn.qkv"),
    ("double_blocks_12.processor.qkv_lora2", "diffusion_model.double_blocks.12.txt_attn.qkv"),
    ("double_blocks_0.proj_lora1", "diffusion_model.double_blocks.0.img_attn.proj"),
    ("model.double_blocks_18_proj_lora2", "diffusion_model.double_blocks.18.txt_attn.proj"),
    ("single_blocks_37_processor_qkv_lora", "diffusion_model.single_blocks.37.linear1_qkv"),
    ("single_blocks.7.processor.proj_lora", "diffusion_model.single_blocks.7.linear2"),
])  # fmt: skip
def test_fused_names_with_dots_and_underscores(stem, wanted):
    lora = to_comfy_keys(pair(stem), "file")
    assert set(lora.state) == {f"{wanted}.lora_down.weight", f"{wanted}.lora_up.weight"}
    assert lora.key_format == "fused" and lora.pairs == 1 and lora.left_out == ()


def test_a_whole_root_file_has_152_pairs():
    state = {}
    for block in range(19):
        for name in ("qkv_lora1", "qkv_lora2", "proj_lora1", "proj_lora2"):
            state |= pair(f"double_blocks_{block}_{name}")
    for block in range(38):
        for name in ("qkv_lora", "proj_lora"):
            state |= pair(f"single_blocks_{block}_{name}")
    lora = to_comfy_keys({**state, "dreamo_task_embedding.weight": torch.ones(2, 4)}, "file")
    assert len(state) == 304 and lora.pairs == 152 and lora.left_out == ()


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"),
                                   ("lora_A.default", "lora_B.default")])  # fmt: skip
def test_split_names(names):
    module = "transformer.single_transformer_blocks.5.attn.to_q"
    lora = to_comfy_keys({**pair(module, names=names), f"{module}.alpha": torch.tensor(1.0)}, "file")
    assert set(lora.state) == {f"{module}.lora_down.weight", f"{module}.lora_up.weight", f"{module}.alpha"}
    assert lora.key_format == "split"


def test_what_is_no_lora_of_flux_is_reported(tmp_path):
    lora = to_comfy_keys({**pair("double_blocks_0_qkv_lora1"), "notes": torch.ones(1)}, "file")
    assert lora.left_out == ("notes",)
    assert lora.remarks() == ["1 tensors are no LoRA of Flux and were left out: notes"]
    torch.save({**pair("double_blocks_0_qkv_lora1"), "epoch": 3}, tmp_path / "x.bin")
    assert load_flux_lora(tmp_path / "x.bin").left_out == ("epoch",)
    assert to_comfy_keys(pair("double_blocks_0_qkv_lora1"), "file").remarks() == []


def test_a_file_may_be_fused_in_part():
    split = pair("transformer.transformer_blocks.0.attn.to_q", names=("lora_A", "lora_B"))
    for state in (pair("double_blocks_0_qkv_lora1") | split, split | pair("double_blocks_0_qkv_lora1")):
        assert to_comfy_keys(state, "file").key_format == "fused"


ONE, OTHER = "transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.1.attn.to_k"


def test_every_module_that_is_changed_is_named():
    """By a pair or by another kind of adapter; magnitudes, norms and the like change nothing alone."""
    state = pair(ONE, names=("lora_A", "lora_B")) | {
        f"{ONE}.dora_scale": torch.ones(9),
        f"{OTHER}.diff": torch.ones(9, 6),
    }
    lora = to_comfy_keys(state, "file")
    assert lora.modules == {ONE, OTHER} and lora.pairs == 1
    assert to_comfy_keys({f"{OTHER}.hada_w1_a": torch.ones(9, 2)}, "file").modules == {OTHER}
    with pytest.raises(ValueError, match="expected a LoRA for Flux, found none among its 1 tensors"):
        to_comfy_keys({f"{OTHER}.dora_scale": torch.ones(9)}, "file")


def test_pefts_magnitudes_are_kept_by_module():
    state = pair(ONE, names=("lora_A", "lora_B")) | {f"{ONE}.lora_magnitude_vector.default.weight": torch.ones(9, 1)}
    lora = to_comfy_keys(state, "file")
    assert lora.magnitudes.keys() == {ONE} and torch.equal(lora.magnitudes[ONE], torch.ones(9))
    assert set(lora.state) == {f"{ONE}.lora_down.weight", f"{ONE}.lora_up.weight"}


def test_alpha_of_a_rank_stabilised_file_is_its_root():
    lora = to_comfy_keys(pair(ONE, rank=4, names=("lora_A", "lora_B")), "file", Alphas(3.0, root=True, source="here"))
    assert float(lora.state[f"{ONE}.alpha"]) == 6 and lora.alpha_source == "here"
    whole = to_comfy_keys(lora.state, "file", Alphas(5.0, source="elsewhere"))
    assert float(whole.state[f"{ONE}.alpha"]) == 6 and whole.alpha_source == ""


@pytest.mark.parametrize(("metadata", "alpha"), [
    ({"ss_network_alpha": "3"}, 3.0), ({"lora_adapter_metadata": '{"transformer.lora_alpha": 5}'}, 5.0),
])  # fmt: skip
def test_alpha_of_the_metadata_is_for_pairs_without_one(tmp_path, metadata, alpha):
    first, second = (f"transformer.transformer_blocks.{block}.attn.to_q" for block in (0, 1))
    state = pair(first, names=("lora_A", "lora_B")) | pair(second, names=("lora_A", "lora_B"))
    save_file({**state, f"{first}.alpha": torch.tensor(1.0)}, tmp_path / "x.safetensors", metadata=metadata)
    lora = load_flux_lora(tmp_path / "x.safetensors")
    assert (float(lora.state[f"{first}.alpha"]), float(lora.state[f"{second}.alpha"])) == (1.0, alpha)
    assert lora.alpha_source.startswith("its metadata")


def test_what_is_not_applied_is_said():
    module = "transformer.transformer_blocks.0.attn.to_q"
    state = pair(module, names=("lora_A", "lora_B")) | {f"{module}.lora_B.bias": torch.ones(9)}
    state |= pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", names=("lora_down", "lora_up"))
    lora = to_comfy_keys(state | {"bundle_emb.hug.string_to_param.*": torch.ones(1)}, "file")
    assert set(lora.state) == {f"{module}.lora_down.weight", f"{module}.lora_up.weight"} and lora.pairs == 1
    said = "; ".join(lora.remarks())
    assert all(words in said for words in ("1 tensors of the biases", "2 tensors of the text encoder"))
    assert "1 tensors of the textual inversion" in said


def test_text_encoders_alone_are_called_by_name():
    state = pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", names=("lora_down", "lora_up"))
    with pytest.raises(ValueError, match="none among its 2 tensors. It is a LoRA of text encoders alone .lora_te1_"):
        to_comfy_keys(state, "f.safetensors")


def test_half_a_pair_is_refused():
    state = pair("double_blocks_0_qkv_lora1")
    del state["double_blocks_0_qkv_lora1.up.weight"]
    with pytest.raises(ValueError, match="f.safetensors: 1 of 1 pairs have only one half: diffusion_model.double_b"):
        to_comfy_keys(state, "f.safetensors")


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({f"double_blocks.{i}.img_mod.lin.weight": torch.ones(1) for i in range(20)}, path)
    with pytest.raises(
        ValueError,
        match=r"other.safetensors: expected a LoRA for Flux, found none among its 20 .*"
        r"a Flux diffusion model",
    ):
        load_flux_lora(path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(pair("double_blocks_0_qkv_lora1"), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cut.safetensors: expected a whole file of tensors"):
        load_flux_lora(path)
