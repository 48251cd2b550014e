"""Which model a LoRA was made for: full-size shapes on the meta device, and what tools write into the metadata."""

import re
from pathlib import Path

import pytest
import torch

from core.cross_attention_layers import SDXL
from core.relation.flux_bases import FLUX_BASES, FluxShape, base_of_file, check_base
from core.relation.lora import parse_lora_keys

NINE = torch.zeros(9, 9)
TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def pair(module, out, into):
    sizes = {"lora_A": (4, into), "lora_B": (out, 4)}
    return {f"{module}.{half}.weight": torch.empty(size, device="meta") for half, size in sizes.items()}


def text_stream(base, prefix="transformer."):
    """A LoRA on the text-stream projections of every double block: site T."""
    shape, state = FLUX_BASES[base].shape, {}
    for block in range(shape.double):
        for name in TEXT:
            state |= pair(f"{prefix}transformer_blocks.{block}.attn.{name}", shape.width, shape.width)
    return state


def single_blocks(base):
    shape, state = FLUX_BASES[base].shape, {}
    for block in range(shape.single):
        name, width = f"transformer.single_transformer_blocks.{block}", shape.width
        if shape.generation == 1:
            state |= pair(f"{name}.attn.to_q", width, width) | pair(f"{name}.proj_out", width, 5 * width)
        else:
            state |= pair(f"{name}.attn.to_qkv_mlp_proj", 9 * width, width) | pair(f"{name}.attn.to_out", width, width)
    return state


def fused(base):
    shape, state = FLUX_BASES[base].shape, {}
    rows = 7 if shape.generation == 1 else 9
    for block in range(shape.double):
        state |= pair(f"diffusion_model.double_blocks.{block}.txt_attn.qkv", 3 * shape.width, shape.width)
    for block in range(shape.single):
        state |= pair(f"diffusion_model.single_blocks.{block}.linear1", rows * shape.width, shape.width)
    return state


@pytest.mark.parametrize("make", [text_stream, single_blocks, fused])
@pytest.mark.parametrize("base", [base for base in FLUX_BASES if base != "kontext"])  # of FLUX.1's very shape
def test_a_file_that_says_nothing_is_known_by_its_blocks(base, make):
    found = base_of_file(make(base), {})
    assert (found.title, found.shape) == (FLUX_BASES[base].title, FLUX_BASES[base].shape)
    check_base(found, FLUX_BASES[base].shape, "file")


@pytest.mark.parametrize(("module", "out", "title"), [
    ("single_transformer_blocks.20.attn.to_q", 3072, "FLUX.1"),  # Klein 4B has 20 single blocks, this is the 21st
    ("transformer_blocks.5.attn.add_k_proj", 3072, "FLUX.1"),  # and five double ones
    ("single_transformer_blocks.3.attn.to_qkv_mlp_proj", 9 * 3072, "FLUX.2 Klein 4B"),  # a layer of Flux.2 alone
    ("single_blocks.3.linear1", 9 * 3072, "FLUX.2 Klein 4B"),  # q, k, v and twice three widths of the MLP
    ("single_blocks.3.linear1", 7 * 3072, "FLUX.1"),  # and four widths
])  # fmt: skip
def test_one_block_may_tell(module, out, title):
    assert base_of_file(pair(f"transformer.{module}", out, 3072), {}).title == title


def test_a_layer_of_one_generation_tells_it():
    attention = pair("transformer.single_transformer_blocks.3.attn.to_q", 3072, 3072)
    assert base_of_file(attention, {}) is None  # two models have it
    mlp = pair("transformer.single_transformer_blocks.3.proj_mlp", 4 * 3072, 3072)
    assert base_of_file(attention | mlp, {}).title == "FLUX.1"
    modulation = pair("transformer.double_stream_modulation_img.linear", 6 * 3072, 3072)
    assert base_of_file(attention | modulation, {}).title == "FLUX.2 Klein 4B"


def test_five_double_blocks_are_klein_4b_only_if_the_single_ones_are_its_own_too():
    single = [pair(f"transformer.single_transformer_blocks.{block}.attn.to_q", 3072, 3072) for block in range(20)]
    state = text_stream("klein-4b") | single[0] | single[1]
    assert base_of_file(state, {}) is None
    for each in single:
        state |= each
    assert base_of_file(state, {}).title == "FLUX.2 Klein 4B"


def test_what_else_a_file_holds_changes_nothing():
    """Text encoders, alphas, convolutions, halves and other packs' tensors."""
    state = text_stream("klein-9b") | pair("text_encoder.text_model.transformer_blocks.30.attn.add_k_proj", 9, 9)
    state |= {"strange.weight": torch.zeros(1), "transformer.transformer_blocks.9.attn.add_k_proj.lora_A.weight": NINE}
    state |= {
        f"transformer.transformer_blocks.{20 + i}.attn.to_q.{part}": NINE for i, part in enumerate(("alpha", "diff"))
    }
    convolution = torch.zeros(9, 9, 1, 1)
    state |= {f"transformer.transformer_blocks.30.attn.to_q.lora_{half}.weight": convolution for half in "AB"}
    state |= pair("transformer.x_embedder", 9, 9)
    assert base_of_file(state, {}).title == "FLUX.2 Klein 9B"


def test_the_text_stream_of_klein_4b_would_fit_flux1_and_is_refused():
    """Its five double blocks have the names and sizes of FLUX.1's first five: nothing else would tell."""
    klein, flux = FLUX_BASES["klein-4b"].shape, FLUX_BASES["flux1-dev"].shape
    with pytest.raises(
        ValueError,
        match=r"hug.safetensors: it was made for FLUX.2 Klein 4B \(by its blocks\), the model is FLUX.1. Load FLUX.2 "
        r"Klein 4B, or choose a relation for FLUX.1.",
    ):
        check_base(base_of_file(text_stream("klein-4b"), {}), flux, "hug.safetensors")
    with pytest.raises(ValueError, match="made for FLUX.1 .*, the model is FLUX.2 Klein 4B"):
        check_base(base_of_file(text_stream("flux1-dev"), {}), klein, "hug.safetensors")
    for key in ("base", "modelspec.architecture"):  # the file's own word is before its blocks, where they fit
        check_base(base_of_file(text_stream("klein-4b"), {key: "flux1-dev"}), flux, "five_blocks.safetensors")


def test_a_tools_word_is_not_believed_against_the_tensors():
    """Older trainers call every Flux.2 "dev"; this pack's own word is always believed."""
    klein = FLUX_BASES["klein-9b"].shape
    check_base(base_of_file(text_stream("klein-9b"), {"modelspec.architecture": "Flux.2-dev/lora"}), klein, "file")
    with pytest.raises(ValueError, match="made for FLUX.2 dev"):
        check_base(base_of_file(text_stream("klein-9b"), {"base": "flux2-dev"}), klein, "file")


def test_qwen_image_has_the_names_and_the_width_of_klein_4b_and_its_word_is_taken():
    base = base_of_file(text_stream("klein-4b"), {"modelspec.architecture": "Qwen-Image/lora"})
    assert (base.title, base.shape) == ("Qwen-Image", None)


@pytest.mark.parametrize(("key", "text", "title"), [
    ("base", "flux1-dev", "FLUX.1"), ("base", "flux", "FLUX.1"), ("base", "kontext", "FLUX.1 Kontext"),
    ("base", "klein-9b", "FLUX.2 Klein 9B"), ("base", "flux2-dev", "FLUX.2 dev"), ("base", "sdxl", "SDXL"),
    ("base", "miniworld", "the miniworld's SDXL"), ("base", "miniworld-flux", "the miniworld's Flux"),
    ("modelspec.architecture", "flux-1-dev/lora", "FLUX.1"), ("modelspec.architecture", "Flux.1-dev/lora", "FLUX.1"),
    ("modelspec.architecture", "Flux.2-klein-4b/lora", "FLUX.2 Klein 4B"),
    ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora", "SDXL"),
    ("modelspec.architecture", "Qwen-Image/lora", "Qwen-Image"),
    ("ss_base_model_version", "flux2_klein_4b", "FLUX.2 Klein 4B"), ("ss_base_model_version", "flux2", "FLUX.2 dev"),
    ("ss_base_model_version", "flux1", "FLUX.1"), ("ss_base_model_version", "sdxl_base_v1-0", "SDXL"),
])  # fmt: skip
def test_what_tools_write_of_the_base(key, text, title):
    found = base_of_file({}, {key: text})
    assert found.title == title and found.source == f'by "{key}" in its metadata'


@pytest.mark.parametrize("metadata", [{}, {"base": ""}, {"modelspec.architecture": "my own/lora"}])
def test_what_says_nothing(metadata):
    assert base_of_file(pair("transformer.transformer_blocks.0.ff.net.2", 8, 8), metadata) is None
    check_base(None, FLUX_BASES["klein-4b"].shape, "file")


def test_a_lora_of_a_unet_is_known_by_its_text():
    unet = pair("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 640, 2048)
    with pytest.raises(ValueError, match="made for SDXL .by its text cross-attentions., the model is FLUX.1"):
        check_base(base_of_file(unet, {}), FLUX_BASES["kontext"].shape, "hug.safetensors")


def test_a_lora_of_flux_on_sdxl_is_called_by_its_base():
    with pytest.raises(ValueError, match="By its blocks it is a LoRA of FLUX.2 Klein 9B .* a relation LoRA for SDXL"):
        parse_lora_keys(text_stream("klein-9b"), SDXL, "hug.safetensors", {})


def test_models_of_no_published_shape_are_asked_for_their_generation_only():
    pruned = FluxShape(1, 3072, 8, 38)
    check_base(base_of_file({}, {"base": "flux1-dev"}), pruned, "file")
    with pytest.raises(ValueError, match="the model is a Flux.1 of width 3072 with 8 double and 38 single blocks"):
        check_base(base_of_file({}, {"base": "klein-4b"}), pruned, "file")
    with pytest.raises(ValueError, match="made for SDXL"):
        check_base(base_of_file({}, {"base": "sdxl"}), pruned, "file")


def test_the_help_page_quotes_the_refusal():
    page = Path(__file__).parents[4] / "web" / "docs" / "RelateRelationLoader.md"
    quoted = re.search(r"\*\*(it was made for [^*]*)\*\*", page.read_text(encoding="utf-8"))
    with pytest.raises(ValueError) as refused:
        check_base(base_of_file({}, {"base": "klein-4b"}), FLUX_BASES["flux1-dev"].shape, "hug.safetensors")
    assert quoted is not None and quoted[1] in str(refused.value)
