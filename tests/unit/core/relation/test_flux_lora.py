"""The relation LoRA of Flux on disk: alpha folded in, kohya's fused form the same change of weights, an honest card."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from core.relation.card import RelationCard, predicate_of
from core.relation.flux_lora import flux_state, kohya_state, load_flux_pairs, save_flux_relation, save_kohya_relation
from core.relation.lora import LowRank

WIDTH, RANK, ALPHA = 8, 2, 1.0
QKV, IMAGE_QKV = (
    [f"transformer_blocks.1.attn.{name}" for name in names]
    for names in (("add_q_proj", "add_k_proj", "add_v_proj"), ("to_q", "to_k", "to_v"))
)
SINGLE = "single_transformer_blocks.0."


def pair(out=WIDTH, into=WIDTH, rank=RANK, alpha=ALPHA, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator), alpha)


def change(state, module):
    """(out, in): what kohya's tools make of a pair."""
    up, down = state[f"{module}.lora_up.weight"], state[f"{module}.lora_down.weight"]
    return state[f"{module}.alpha"] / down.shape[0] * up @ down


def test_alpha_is_folded_into_b_and_there_are_no_alpha_keys():
    pairs = {name: pair(seed=number) for number, name in enumerate(QKV)}
    state = flux_state(pairs)
    assert set(state) == {f"transformer.{name}.lora_{side}.weight" for name in QKV for side in "AB"}
    for name, each in pairs.items():
        product = state[f"transformer.{name}.lora_B.weight"] @ state[f"transformer.{name}.lora_A.weight"]
        torch.testing.assert_close(product, each.delta(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("present", [(0, 1, 2), (0, 1), (1, 2), (1,)])
@pytest.mark.parametrize("alphas", [(1.0, 1.0, 1.0), (1.0, 3.0, 2.0)])
@pytest.mark.parametrize(("qkv", "stream"), [(QKV, "txt"), (IMAGE_QKV, "img")], ids=["text", "image"])
def test_kohyas_fused_form_changes_the_same_rows_by_the_same(present, alphas, qkv, stream):
    pairs = {qkv[i]: pair(alpha=alphas[i], seed=i) for i in present}
    state = kohya_state(pairs)
    name = f"lora_unet_double_blocks_1_{stream}_attn_qkv"
    assert set(state) == {f"{name}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    rank = RANK * len(present)
    assert state[f"{name}.lora_down.weight"].shape == (rank, WIDTH)
    if len(set(alphas)) == 1:
        assert float(state[f"{name}.alpha"]) == ALPHA * len(present)  # alpha 3a of rank 3r
    expected = torch.cat([pairs[each].delta() if each in pairs else torch.zeros(WIDTH, WIDTH) for each in qkv])
    torch.testing.assert_close(change(state, name), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("module", "name"), [
    ("transformer_blocks.7.attn.to_out.0", "double_blocks_7_img_attn_proj"),
    ("transformer_blocks.7.attn.to_add_out", "double_blocks_7_txt_attn_proj"),
    ("transformer_blocks.7.norm1.linear", "double_blocks_7_img_mod_lin"),
    ("transformer_blocks.7.norm1_context.linear", "double_blocks_7_txt_mod_lin"),
    ("transformer_blocks.7.ff.net.0.proj", "double_blocks_7_img_mlp_0"),
    ("transformer_blocks.7.ff.net.2", "double_blocks_7_img_mlp_2"),
    ("transformer_blocks.7.ff_context.net.0.proj", "double_blocks_7_txt_mlp_0"),
    ("transformer_blocks.7.ff_context.net.2", "double_blocks_7_txt_mlp_2"),
    ("transformer_blocks.7.ff.linear_in", "double_blocks_7_img_mlp_0"),
    ("transformer_blocks.7.ff.linear_out", "double_blocks_7_img_mlp_2"),
    ("transformer_blocks.7.ff_context.linear_in", "double_blocks_7_txt_mlp_0"),
    ("transformer_blocks.7.ff_context.linear_out", "double_blocks_7_txt_mlp_2"),
    ("single_transformer_blocks.7.norm.linear", "single_blocks_7_modulation_lin"),
])  # fmt: skip
def test_modules_that_are_not_fused_have_kohyas_own_names(module, name):
    assert f"lora_unet_{name}.lora_up.weight" in kohya_state({module: pair()})


@pytest.mark.parametrize("mlp", [False, True])
def test_single_blocks_of_flux1_fuse_with_the_rows_of_the_mlp(mlp):
    pairs = {f"{SINGLE}attn.to_{name}": pair(seed=number) for number, name in enumerate("qkv")}
    pairs |= {f"{SINGLE}proj_mlp": pair(4 * WIDTH, seed=3)} if mlp else {}
    pairs |= {f"{SINGLE}proj_out": pair(WIDTH, 5 * WIDTH, seed=4)}
    state = kohya_state(pairs)
    parts = [pairs[f"{SINGLE}attn.to_{name}"].delta() for name in "qkv"]
    parts.append(pairs[f"{SINGLE}proj_mlp"].delta() if mlp else torch.zeros(4 * WIDTH, WIDTH))
    torch.testing.assert_close(change(state, "lora_unet_single_blocks_0_linear1"), torch.cat(parts), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        change(state, "lora_unet_single_blocks_0_linear2"), pairs[f"{SINGLE}proj_out"].delta(), atol=1e-6, rtol=0
    )


def test_rows_of_the_mlp_are_rounded_to_whole_ones():
    """2.3 * 10 is 22.999999999999996 in binary."""
    pairs = {f"{SINGLE}attn.to_v": pair(10, 10), f"{SINGLE}proj_mlp": pair(23, 10)}
    assert kohya_state(pairs, 2.3)["lora_unet_single_blocks_0_linear1.lora_up.weight"].shape == (53, 2 * RANK)


def test_files_are_of_full_precision_whatever_the_pairs_have():
    pairs = {
        name: LowRank(torch.ones(2, 8).half(), torch.ones(8, 2).half(), 3.0) for name in (QKV[0], SINGLE + "proj_out")
    }
    for state in (flux_state(pairs), kohya_state(pairs)):
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_flux2s_fused_modules_keep_their_pair():
    pairs = {f"{SINGLE}attn.to_qkv_mlp_proj": pair(9 * WIDTH), f"{SINGLE}attn.to_out": pair(WIDTH, 4 * WIDTH)}
    state = kohya_state(pairs)
    assert torch.equal(state["lora_unet_single_blocks_0_linear1.lora_up.weight"], pairs[next(iter(pairs))].up)
    assert state["lora_unet_single_blocks_0_linear2.lora_down.weight"].shape == (RANK, 4 * WIDTH)


def test_what_cannot_be_written():
    with pytest.raises(ValueError, match="expected the pairs of a relation, got none"):
        flux_state({})
    with pytest.raises(ValueError, match="expected the pairs of a relation, got none"):
        kohya_state({})
    with pytest.raises(ValueError, match="expected modules as diffusers names them .* got double_blocks.0.img_attn"):
        flux_state({"double_blocks.0.img_attn.qkv": pair()})
    with pytest.raises(ValueError, match="1 modules have no name in kohya's format: transformer_blocks.0.attn.norm_q"):
        kohya_state({"transformer_blocks.0.attn.norm_q": pair()})
    with pytest.raises(ValueError, match="part 3 of a fused weight has 16 rows, expected 32"):
        kohya_state({f"{SINGLE}attn.to_q": pair(), f"{SINGLE}proj_mlp": pair(16)})


def test_the_card_of_both_files(tmp_path):
    card = RelationCard(
        base="klein-4b", relation="hugging", rank=RANK, alpha=ALPHA, sites="T", reference_method="index",
        data_licences=("CC0", "own", "CC0"),
    )  # fmt: skip
    pairs = {QKV[0]: pair()}
    save_flux_relation(tmp_path / "hug.safetensors", pairs, card)
    save_kohya_relation(tmp_path / "hug_kohya.safetensors", pairs, card)
    for name in ("hug", "hug_kohya"):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            metadata = file.metadata()
        assert {key: metadata[key] for key in ("format", "kind", "base", "sites", "reference_method")} == {
            "format": "relate/1", "kind": "relation", "base": "klein-4b", "sites": "T", "reference_method": "index",
        }  # fmt: skip
        assert metadata["data_licences"] == "CC0, own" and (metadata["rank"], metadata["alpha"]) == ("2", "1")
        assert metadata["modelspec.architecture"] == "Flux.2-klein-4b/lora"


def test_pairs_come_back_as_they_were_written(tmp_path):
    pairs = {name: pair(seed=number) for number, name in enumerate(QKV)}
    save_flux_relation(tmp_path / "hug.safetensors", pairs, RelationCard(base="kontext", relation="hugging"))
    back, metadata = load_flux_pairs(tmp_path / "hug.safetensors")
    assert metadata["relation"] == "hugging" and back.keys() == pairs.keys()
    for name in pairs:
        torch.testing.assert_close(back[name].delta(), pairs[name].delta(), atol=1e-6, rtol=0)
    save_kohya_relation(tmp_path / "kohya.safetensors", pairs, RelationCard(base="kontext", relation="hugging"))
    with pytest.raises(ValueError, match="kohya.safetensors: expected transformer.<module>.lora_A.weight .* got lora_"):
        load_flux_pairs(tmp_path / "kohya.safetensors")
    save_file({f"transformer.{QKV[0]}.lora_A.weight": torch.ones(RANK, WIDTH)}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="got transformer_blocks.1.attn.add_q_proj without lora_B"):
        load_flux_pairs(tmp_path / "half.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(ValueError, match="of Flux's blocks only, got none"):
        load_flux_pairs(tmp_path / "empty.safetensors")
    other = {f"transformer.x_embedder.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    save_file(flux_state(pairs) | other, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match="got transformer.x_embedder.lora_A.weight, transformer.x_embedder.lora_B.weight"
    ):
        load_flux_pairs(tmp_path / "other.safetensors")


@pytest.mark.parametrize(("metadata", "predicate"), [
    ({"relation": "hugging", "modelspec.trigger_phrase": "hug"}, "hugging"), ({}, ""),
    ({"modelspec.trigger_phrase": "hug"}, "hug"), ({"relation": "", "modelspec.trigger_phrase": "hug"}, "hug"),
])  # fmt: skip
def test_the_predicate_of_a_file(metadata, predicate):
    assert predicate_of(metadata) == predicate


def test_the_losses_of_a_card_stand_in_the_order_of_their_names():
    card = RelationCard(base="kontext", relation="hugging", losses={"keypoint": 1.0, "attention": 0.5})
    assert card.metadata()["losses"] == '{"attention": 0.5, "keypoint": 1.0}'
