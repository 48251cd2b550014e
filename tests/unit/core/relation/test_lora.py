"""The relation LoRA: four published spellings to the same pairs, and back through the file."""

import json

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint import read_metadata
from core.cross_attention_layers import PROJECTIONS, SDXL, UNetSpec
from core.relation.lora import LowRank, RelationCard, RelationLoRA, load_relation, parse_lora_keys, save_relation

SMALL = UNetSpec.of_depths((8, 16), 1, (0, 1), 12)
RANK = 2


def shapes(layout, rank=RANK):
    """(site path, projection) to the shapes of down and up."""
    for site in layout.sites():
        for projection in PROJECTIONS:
            inner = layout.context_width if projection in ("to_k", "to_v") else site.width
            yield (site.diffusers, projection), (rank, inner), (site.width, rank)


@pytest.fixture(scope="module")
def pairs():
    draw = torch.Generator().manual_seed(0)
    return {
        address: LowRank(torch.randn(down, generator=draw), torch.randn(up, generator=draw), float(RANK))
        for address, down, up in shapes(SMALL)
    }


def spelled(pairs, spelling):
    """The pairs as each tool writes them."""
    state = {}
    comfy = {site.diffusers: site.comfy for site in SMALL.sites()}
    for (site, projection), pair in pairs.items():
        path = f"{site}.{projection}"
        old = f"{site}.processor.{projection.removesuffix('.0')}_lora"
        block, number, index = comfy[site]
        sgm = {"input": f"input_blocks_{number}_1", "output": f"output_blocks_{number}_1", "middle": "middle_block_1"}[
            block
        ] + f"_transformer_blocks_{index}_attn2_{projection.replace('.', '_')}"
        down, up = {
            "authors": (f"unet.{path}.lora.down.weight", f"unet.{path}.lora.up.weight"),
            "peft": (f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"),
            "peft, named": (f"{path}.lora_A.default.weight", f"{path}.lora_B.default.weight"),
            "diffusers' peft": (f"unet.{path}.lora_A.weight", f"unet.{path}.lora_B.weight"),
            "processor": (f"unet.{old}.down.weight", f"unet.{old}.up.weight"),
            "kohya": (
                f"lora_unet_{path.replace('.', '_')}.lora_down.weight",
                f"lora_unet_{path.replace('.', '_')}.lora_up.weight",
            ),
            "kohya, original names": (f"lora_unet_{sgm}.lora_down.weight", f"lora_unet_{sgm}.lora_up.weight"),
        }[spelling]
        state |= {down: pair.down, up: pair.up}
    return state


@pytest.mark.parametrize(
    "spelling", ["authors", "peft", "peft, named", "diffusers' peft", "processor", "kohya", "kohya, original names"]
)
def test_every_spelling_is_the_same_relation(pairs, spelling):
    lora = parse_lora_keys(spelled(pairs, spelling), SMALL, "file", {})
    assert lora.pairs.keys() == pairs.keys()
    assert all(torch.equal(lora.pairs[address].delta(), pairs[address].delta()) for address in pairs)
    assert lora.left_out == ()
    assert lora.report() == "16 of 16 pairs at 4 of 4 sites"


def test_alpha_scales_the_delta(pairs):
    state = spelled(pairs, "kohya")
    doubled = state | {
        key.replace("lora_down.weight", "alpha"): torch.tensor(2.0 * RANK) for key in state if "lora_down" in key
    }
    once, twice = (parse_lora_keys(s, SMALL, "file", {}) for s in (state, doubled))
    for address in pairs:
        torch.testing.assert_close(twice.pairs[address].delta(), 2 * once.pairs[address].delta())
    assert twice.beside == {} and set(twice.state()) == set(doubled)


def test_the_delta_of_half_precision_is_computed_in_full():
    down, up = torch.full((2, 3), 0.01).half(), torch.full((4, 2), 0.01).half()
    delta = LowRank(down, up, 6.0).delta()
    assert delta.dtype == torch.float32
    torch.testing.assert_close(delta, 3 * up.float() @ down.float())


def test_the_size_of_a_relation_on_sdxl():
    with torch.device("meta"):
        state = {}
        for (site, projection), down, up in shapes(SDXL, rank=4):
            state |= {
                f"unet.{site}.{projection}.lora.down.weight": torch.empty(down),
                f"unet.{site}.{projection}.lora.up.weight": torch.empty(up),
            }
    lora = parse_lora_keys(state, SDXL, "file", {})
    assert lora.report() == "280 of 280 pairs at 70 of 70 sites"
    assert sum(pair.down.numel() + pair.up.numel() for pair in lora.pairs.values()) == 3_143_680
    assert len(lora.state()) == 840 and len(state) == 560


def test_other_content_of_a_file_is_named(pairs, tmp_path):
    """An epoch beside the tensors, tensors that are no LoRA's, and modules in the order of their names."""
    others = {f"lora_unet_{name}_attn1_to_q.lora_down.weight": torch.zeros(2, 16) for name in "dbeca"}
    state = spelled(pairs, "kohya") | others | {"strange.weight": torch.zeros(1), "epoch": 3}
    torch.save(state, tmp_path / "x.bin")
    names = (*(f"{name}_attn1_to_q" for name in "abcde"), "strange.weight", "epoch")
    assert load_relation(tmp_path / "x.bin", SMALL).left_out == names


def test_modules_that_are_no_cross_attention_are_named(pairs):
    other = {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": torch.zeros(2, 16),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight": torch.zeros(16, 2),
    }
    lora = parse_lora_keys(spelled(pairs, "kohya") | other, SMALL, "file", {})
    assert len(lora.pairs) == 16
    assert lora.left_out == ("mid_block_attentions_0_transformer_blocks_0_attn1_to_q",)


def test_a_lora_of_another_base_is_refused(pairs):
    with pytest.raises(
        ValueError,
        match="16 of 16 pairs do not fit this model: .*It was made for a UNet of context width 12, the model is SDXL.",
    ):
        parse_lora_keys(spelled(pairs, "authors"), SDXL, "file", {})
    with pytest.raises(
        ValueError,
        match=r"pairs do not fit this model: .*and \d+ more. It was made for the miniworld's SDXL, the "
        "model is a UNet of context width 13.",
    ):
        parse_lora_keys(
            spelled(pairs, "authors"), UNetSpec.of_depths((8, 16), 1, (0, 1), 13), "file", {"base": "miniworld"}
        )


def test_a_file_without_a_single_pair_is_an_error():
    flux = {"transformer.single_blocks.0.linear1.lora_A.weight": torch.zeros(1)}
    with pytest.raises(
        ValueError,
        match="flux.safetensors: 0 of 70 text cross-attentions of this model found in it. "
        "By its keys it is a LoRA.*Expected a relation LoRA for SDXL.",
    ):
        parse_lora_keys(flux, SDXL, "flux.safetensors", {})


def test_half_a_pair_is_an_error(pairs):
    state = spelled(pairs, "authors")
    del state[next(key for key in state if key.endswith("up.weight"))]
    with pytest.raises(ValueError, match="1 of 16 pairs do not fit .*to_q has no up"):
        parse_lora_keys(state, SMALL, "file", {})


def test_the_file_comes_back_as_it_was_written(pairs, tmp_path):
    card = RelationCard(
        base="miniworld",
        relation="hugging",
        example_prompt="a cat hugging a bear",
        rank=RANK,
        alpha=RANK,
        steps=500,
        losses={"keypoint": 1e-3},
        dataset_sha256="ab",
        created_with="test",
    )
    path = tmp_path / "hugging.safetensors"
    save_relation(path, RelationLoRA(pairs, SMALL), card)
    lora = load_relation(path, SMALL)
    assert all(torch.equal(lora.pairs[address].delta(), pairs[address].delta()) for address in pairs)
    assert lora.relation == "hugging"
    metadata = read_metadata(path)
    assert metadata["format"] == "relate/1" and metadata["kind"] == "relation" and metadata["rank"] == "2"
    assert json.loads(metadata["losses"]) == {"keypoint": 1e-3}
    assert metadata["modelspec.trigger_phrase"] == "hugging"
    assert metadata["modelspec.architecture"] == "miniworld/lora"
    assert "modelspec.thumbnail" not in metadata


def test_a_file_of_another_kind_is_refused(pairs, tmp_path):
    save_file(spelled(pairs, "kohya"), tmp_path / "x.safetensors", metadata={"kind": "identity"})
    with pytest.raises(ValueError, match="x.safetensors: expected a relation LoRA, got a file of kind 'identity'"):
        load_relation(tmp_path / "x.safetensors", SMALL)
