"""Reading the relation LoRA of a Flux-class model: the words it was trained with, and files that are none."""

import pytest
import torch
from safetensors.torch import save_file

from core.flux_lora_keys import FluxLoRA
from core.relation.card import RelationCard
from core.relation.flux_bases import FLUX_BASES
from core.relation.flux_lora import save_flux_relation
from core.relation.flux_relation import FluxRelation, load_flux_relation
from core.relation.lora import LowRank

MODULE = "transformer_blocks.0.attn.add_k_proj"
KLEIN = FLUX_BASES["klein-4b"].shape


@pytest.fixture
def path(tmp_path):
    card = RelationCard(base="klein-4b", relation="hugging", sites="T", reference_method="index")
    pairs = {MODULE: LowRank(torch.ones(2, 6), torch.ones(6, 2), 1.0)}
    save_flux_relation(tmp_path / "hug.safetensors", pairs, card)
    return tmp_path / "hug.safetensors"


def test_a_file_of_ours_says_what_it_is(path):
    relation = load_flux_relation(path, KLEIN)
    assert relation.relation == "hugging"
    assert relation.report() == "1 pairs for FLUX.2 Klein 4B, sites T, trained with references by 'index'"


def test_a_file_of_another_tool_says_what_there_is():
    lora = FluxLoRA({}, 20, "split", magnitudes={MODULE: torch.ones(6)}, alpha_source="its metadata")
    assert FluxRelation(lora, None).report() == "20 pairs, 1 of them DoRA, alpha from its metadata"


def test_another_base_is_refused(path):
    with pytest.raises(
        ValueError, match=r"hug.safetensors: it was made for FLUX.2 Klein 4B \(by .base. in its metadata"
    ):
        load_flux_relation(path, FLUX_BASES["flux1-dev"].shape)


def test_files_that_are_no_relation(tmp_path):
    state = {f"transformer.{MODULE}.lora_{half}.weight": torch.ones(2, 2) for half in "AB"}
    save_file(state, tmp_path / "x.safetensors", metadata={"kind": "identity"})
    with pytest.raises(ValueError, match="x.safetensors: expected a relation LoRA, got a file of kind 'identity'"):
        load_flux_relation(tmp_path / "x.safetensors", KLEIN)
    save_file({"a.weight": torch.ones(1)}, tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match="y.safetensors: expected a LoRA for Flux, found none among its 1 tensors"):
        load_flux_relation(tmp_path / "y.safetensors", KLEIN)
