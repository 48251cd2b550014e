"""Which UNet a relation was made for: rows that cannot be taken for each other, and files of another refused."""

from dataclasses import replace

import pytest
import torch

from core.cross_attention_layers import PROJECTIONS, SDXL, UNetSpec
from core.relation.card import RelationCard
from core.relation.flux_bases import FLUX_BASES, base_of_file
from core.relation.lora import parse_lora_keys
from core.relation.unet_bases import (
    UNET_BASES,
    UNNAMED,
    UNetBase,
    base_name,
    base_of_checkpoint,
    title_of_context,
    unet_title,
)

SHORTER = UNetSpec.of_depths((320, 640, 1280), 2, (0, 1, 3), 2048, middle=0)  # as CONTRIBUTING describes a row


@pytest.fixture
def shorter(monkeypatch):
    """A base with some of SDXL's layers, of SDXL's widths."""
    monkeypatch.setitem(UNET_BASES, "shorter", UNetBase("Shorter", "shorter-xl", SHORTER))


def relation_for(spec):
    state = {}
    for site in spec.sites():
        for projection in PROJECTIONS:
            inner = spec.context_width if projection in ("to_k", "to_v") else site.width
            module = f"unet.{site.diffusers}.{projection}.lora"
            state[f"{module}.down.weight"] = torch.empty(4, inner, device="meta")
            state[f"{module}.up.weight"] = torch.empty(site.width, 4, device="meta")
    return state


def test_no_two_bases_can_be_taken_for_each_other():
    assert len({base.spec for base in UNET_BASES.values()}) == len(UNET_BASES)
    words = [word for name, base in UNET_BASES.items() for word in {name, base.architecture, base.title}]
    words += FLUX_BASES
    assert len(words) == len(set(words)) and UNNAMED not in words


@pytest.mark.parametrize("name", UNET_BASES)
def test_files_and_checkpoints_are_known_by_their_row(name):
    base = UNET_BASES[name]
    assert base_name(base.spec) == name and unet_title(base.spec) == base.title
    metadata = RelationCard(name, "hugging").metadata()
    assert metadata["modelspec.architecture"] == f"{base.architecture}/lora"
    for key in ("base", "modelspec.architecture"):
        assert base_of_file({}, {key: metadata[key]}).title == base.title, key
    keys = {f"{site.checkpoint}.to_k.weight": (site.width, base.spec.context_width) for site in base.spec.sites()}
    assert base_of_checkpoint(keys | {"out.2.weight": (4, 320, 3, 3)}) == name
    keys.pop(next(iter(keys)))
    assert base_of_checkpoint(keys) is None
    own = parse_lora_keys(relation_for(base.spec), base.spec, "file", metadata)
    assert own.report().startswith(f"{4 * len(base.spec.sites())} of {4 * len(base.spec.sites())} pairs")


def test_a_relation_of_a_shorter_base_fits_sdxls_first_layers_and_is_refused(shorter):
    with pytest.raises(
        ValueError,
        match=r"hug: it was made for Shorter \(by .base. in its metadata\), the model is SDXL. Load Shorter, or choose "
        "a relation for SDXL.$",
    ):
        parse_lora_keys(relation_for(SHORTER), SDXL, "hug", {"base": "shorter"})
    with pytest.raises(ValueError, match="made for SDXL .*, the model is Shorter"):
        parse_lora_keys(relation_for(SDXL), SHORTER, "hug", {"base": "sdxl"})


def test_files_of_no_base_and_models_of_no_row_are_judged_by_their_pairs(shorter):
    assert parse_lora_keys(relation_for(SHORTER), SDXL, "hug", {}).report() == "80 of 280 pairs at 20 of 70 sites"
    pruned = replace(SDXL, middle=9)
    assert base_name(pruned) == UNNAMED and len(parse_lora_keys(relation_for(SDXL), pruned, "x", {}).left_out) == 4
    assert len(parse_lora_keys(relation_for(SDXL), pruned, "x", {"base": "sdxl"}).pairs) == 276


def test_titles_without_a_row(shorter):
    assert base_name(UNetSpec.of_depths((8,), 1, (1,), 12)) == "miniworld"  # what their files have always said
    assert unet_title(replace(SDXL, middle=9)) == "a UNet of context width 2048"
    assert unet_title(UNetSpec.of_depths((8,), 1, (1,), 768)) == "SD 1.5"
    titles = title_of_context(SDXL.context_width).split(" or ")
    assert titles[0] == "SDXL" and titles[-1] == "Shorter"
    assert title_of_context(1024) == "SD 2" and title_of_context(12) == "a UNet of context width 12"
