"""Load Relation on Flux.1 and Flux.2: every spelling in the wild is the same dense change of weights."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import save_file

from core.relation.card import RelationCard
from core.relation.flux_lora import flux_state, kohya_state, save_flux_relation, save_kohya_relation
from core.relation.lora import LowRank
from tests.host.flux_studio import WIDTH, WIDTHS
from tests.host.test_flux_loading import merged

RANK, ALPHA = 4, 2.0
DOUBLE, SINGLE = 2, 3
SIZES = {"depth": DOUBLE, "depth_single_blocks": SINGLE}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
GIVEN = {"flux1": 31, "flux2": 22}  # modules of diffusers' names


@pytest.fixture(scope="module", params=["flux1", "flux2"])
def kind(request, comfy):
    import comfy.supported_models

    if request.param == "flux2" and not hasattr(comfy.supported_models, "Flux2"):
        pytest.skip("this ComfyUI has no Flux.2")
    return request.param


@pytest.fixture(scope="module")
def model(kind, tiny):
    with torch.inference_mode():
        if kind == "flux1":
            return tiny.model("flux", unet={**WIDTHS, **SIZES, "mlp_ratio": 4.0})
        import importlib

        return importlib.import_module(f"{tiny.__package__}.native").model("flux2", **SIZES)


@pytest.fixture(scope="module")
def pairs(kind, model):
    """A pair for every linear layer of the blocks' attention, and of single blocks whole: (out, in) by module."""
    width = model.model.model_config.unet_config["hidden_size"]
    sizes = {f"transformer_blocks.{i}.attn.{name}": (width, width) for i in range(DOUBLE) for name in ATTENTION}
    rows, into = (
        tuple(model.model.diffusion_model.single_blocks[0].get_submodule(name).weight.shape)[side]
        for name, side in (("linear1", 0), ("linear2", 1))
    )
    for i in range(SINGLE):
        block = f"single_transformer_blocks.{i}"
        if kind == "flux1":
            sizes |= {f"{block}.attn.to_{name}": (width, width) for name in "qkv"}
            sizes |= {f"{block}.proj_mlp": (rows - 3 * width, width), f"{block}.proj_out": (width, into)}
        else:
            sizes |= {f"{block}.attn.to_qkv_mlp_proj": (rows, width), f"{block}.attn.to_out": (width, into)}
    generator = torch.Generator().manual_seed(5)
    return {
        name: LowRank(
            torch.randn(RANK, into, generator=generator) * 0.2, torch.randn(out, RANK, generator=generator) * 0.2, ALPHA
        )
        for name, (out, into) in sizes.items()
    }


@pytest.fixture(scope="module")
def dense(model, pairs):
    """Weights with the changes added by hand, through ComfyUI's own table of diffusers' names."""
    import comfy.utils

    table = comfy.utils.flux_to_diffusers(model.model.model_config.unet_config)
    weights = {name: tensor.clone() for name, tensor in model.model.diffusion_model.state_dict().items()}
    touched = set()
    for name, pair in pairs.items():
        target = table[f"{name}.weight"]
        key, (_, start, length) = (target, (0, 0, None)) if isinstance(target, str) else target
        rows = weights[key][start:] if length is None else weights[key][start : start + length]
        rows += pair.delta()
        touched.add(key)
    return {key: weights[key] for key in touched}


def spelled(pairs, prefix, names=("lora_A", "lora_B"), alpha=True, dots=True):
    """One file: unfolded where it has alpha."""
    state = {}
    for module, pair in pairs.items():
        stem = prefix + (module if dots else module.replace(".", "_"))
        scale = 1.0 if alpha else pair.alpha / RANK
        state[f"{stem}.{names[0]}.weight"] = pair.down.clone()
        state[f"{stem}.{names[1]}.weight"] = scale * pair.up
        state |= {f"{stem}.alpha": torch.tensor(pair.alpha)} if alpha else {}
    return state


def fused(pairs, prefix, dots=True):
    """kohya's fused pairs by module, BFL's names with dots or underscores."""
    state = kohya_state(pairs)
    found = {}
    for key in state:
        stem, _, part = key.removeprefix("lora_unet_").partition(".")
        name = re.sub(r"^(double|single)_blocks_(\d+)_", r"\1_blocks.\2.", stem)
        name = re.sub(r"(img|txt)_attn_", r"\1_attn.", name)
        found[f"{prefix}{name if dots else stem}.{part}"] = state[key]
    return found


def folded(state):
    """Without alpha keys: their scale in the upper matrices; peft's names."""
    changed = {}
    for key, value in state.items():
        stem, _, part = key.partition(".lora_")
        if part == "up.weight":
            scale = float(state[f"{stem}.alpha"]) / value.shape[1]
            changed[f"{stem}.lora_B.weight"] = scale * value
        elif part == "down.weight":
            changed[f"{stem}.lora_A.weight"] = value
    return changed


KOHYA = ("lora_down", "lora_up")
HEADER = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA, "transformer.target_modules": ["to_q"]}
SPELLINGS = {
    "ours": lambda pairs: flux_state(pairs),
    "diffusers with alpha": lambda pairs: spelled(pairs, "transformer."),
    "diffusers, kohya's halves": lambda pairs: spelled(pairs, "transformer.", KOHYA),
    "bare": lambda pairs: spelled(pairs, "", alpha=False),
    "peft": lambda pairs: spelled(pairs, "base_model.model.", alpha=False),
    "peft, named": lambda pairs: spelled(pairs, "", ("lora_A.default", "lora_B.default"), alpha=False),
    "mixed": lambda pairs: spelled(pairs, "diffusion_model.", alpha=False),
    "kohya, diffusers' names": lambda pairs: spelled(pairs, "lora_unet_", KOHYA, dots=False),
    "OneTrainer": lambda pairs: spelled(pairs, "lora_transformer_", KOHYA, dots=False),
    "LyCORIS": lambda pairs: spelled(pairs, "lycoris_", KOHYA, dots=False),
    "kohya": lambda pairs: kohya_state(pairs),
    "LyCORIS, fused": lambda pairs: fused(pairs, "lycoris_", dots=False),
    "BFL": lambda pairs: folded(fused(pairs, "diffusion_model.")),
    "BFL with alpha": lambda pairs: fused(pairs, "diffusion_model."),
    "BFL, peft": lambda pairs: folded(fused(pairs, "base_model.model.")),
}


@pytest.fixture
def load(model, pack, base_directory):
    def run(state, metadata=None, strength=1.0, name="flux_relation.safetensors"):
        if state is not None:
            path = base_directory / "models" / "loras" / name
            save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata)
        return pack.run("RelateRelationLoader", model=model, lora_name=name, strength=strength)

    return run


def same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_dense_change(kind, pairs, dense, load, caplog, spelling):
    caplog.set_level(logging.INFO)
    state = SPELLINGS[spelling](pairs)
    changed, _ = load(state)
    same(merged(changed), dense)
    stems = {key.partition(".lora_")[0] for key in state if ".lora_" in key}
    expected = 14 if spelling in ("kohya", "LyCORIS, fused") or spelling.startswith("BFL") else GIVEN[kind]
    assert len(stems) == expected and f"{expected} pairs" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("metadata", [
    {"lora_adapter_metadata": json.dumps(HEADER)}, {"ss_network_alpha": "2.0"}, {"lora_alpha": "2"},
], ids=["diffusers", "kohya", "plain"])  # fmt: skip
def test_alpha_in_the_metadata(pairs, dense, load, caplog, metadata):
    caplog.set_level(logging.INFO)
    state = {key: value for key, value in spelled(pairs, "transformer.").items() if not key.endswith(".alpha")}
    same(merged(load(state, metadata)[0]), dense)
    assert "alpha from its metadata" in caplog.text


@pytest.mark.parametrize("spelling", ["transformer.", "base_model.model.", "fused"])
def test_pefts_magnitudes(model, pairs, dense, load, caplog, spelling):
    """m (W + delta) / ||W + delta||, row by row, so that fused and split files are the same."""
    weights = model.model.diffusion_model.state_dict()
    state = kohya_state(pairs) if spelling == "fused" else spelled(pairs, spelling, alpha=False)
    magnitude = 0.75  # of every row
    stems = {key.partition(".lora_")[0]: key for key in state if ".lora_up" in key or ".lora_B" in key}
    state |= {f"{stem}.lora_magnitude_vector": torch.full((len(state[key]),), magnitude) for stem, key in stems.items()}
    expected = {name: magnitude * weight / weight.norm(dim=1, keepdim=True) for name, weight in dense.items()}
    changed, _ = load(state)
    same(merged(changed), expected)
    half = merged(load(state, strength=0.5)[0])
    same(half, {name: torch.lerp(weights[name], expected[name], 0.5) for name in expected})


def test_both_files_of_training_and_comfyuis_own_loader(kind, model, pairs, dense, load, comfy, base_directory):
    """The file that training writes, through Load Relation and through ComfyUI's Load LoRA; kohya's file as well."""
    loras = base_directory / "models" / "loras"
    card = RelationCard(base="", relation="hugging", rank=RANK, alpha=ALPHA, sites="DS")
    save_flux_relation(loras / "ours.safetensors", pairs, card)
    save_kohya_relation(loras / "ours_kohya.safetensors", pairs, card)
    for name in ("ours.safetensors", "ours_kohya.safetensors"):
        changed, words = load(None, name=name)
        same(merged(changed), dense)
        assert words == "hugging"
        with torch.inference_mode():
            same(merged(comfy.LoraLoaderModelOnly().load_lora_model_only(model, name, 1.0)[0]), dense)


def test_strength_0_is_the_untouched_model(model, pairs, load):
    changed, _ = load(flux_state(pairs), strength=0.0)
    assert changed.patches == {} == model.patches and changed is not model


@pytest.mark.parametrize(("base", "title"), [
    ("flux1-dev", "FLUX.1"), ("klein-4b", "FLUX.2 Klein 4B"), ("sdxl", "SDXL"), ("miniworld", "the miniworld's SDXL"),
])  # fmt: skip
def test_a_file_for_another_base_is_refused_by_name(kind, pairs, load, base, title):
    if {"flux1-dev": "flux1", "klein-4b": "flux2"}.get(base) == kind:
        load(flux_state(pairs), {"base": base})  # its generation, and its sizes fit: nothing to refuse
        return
    with pytest.raises(
        ValueError, match=rf"made for {title} \(by .base. in its metadata\), the model is a Flux.* Load"
    ):
        load(flux_state(pairs), {"base": base})


def test_modules_that_the_model_has_not(kind, pairs, load):
    more = {name.replace("transformer_blocks.1.", "transformer_blocks.7."): pair for name, pair in pairs.items()}
    with pytest.raises(ValueError, match=r"\d+ of \d+ pairs found their weights in this model; it has no .*blocks.7"):
        load(flux_state(more))


def test_sizes_that_do_not_fit(pairs, load):
    wide = {name: LowRank(pair.down, torch.cat((pair.up, pair.up)), pair.alpha) for name, pair in pairs.items()}
    with pytest.raises(
        ValueError, match=rf"{len(pairs)} pairs do not fit this model: .*{2 * WIDTH}, {RANK}.* expected"
    ):
        load(flux_state(wide))


def test_one_module_in_two_spellings_is_refused(pairs, load):
    name = next(iter(pairs))
    state = flux_state(pairs) | spelled({name: pairs[name]}, "lora_transformer_", KOHYA, dots=False)
    with pytest.raises(ValueError, match="1 modules are in it twice, in two spellings: lora_transformer_"):
        load(state)


def test_parts_without_a_module_are_said(pairs, load, caplog, dense):
    state = flux_state(pairs) | {"transformer.transformer_blocks.0.attn.norm_q.w_norm": torch.ones(4)}
    same(merged(load(state)[0]), dense)
    assert "1 tensors change no module by themselves" in caplog.text


def test_a_relation_of_flux_on_sdxl_and_of_sdxl_on_flux(pack, tiny_sdxl, pairs, load):
    load(
        flux_state(pairs),
        {"base": "klein-4b"} if len(pairs) == 22 else {"base": "flux1-dev"},
        name="of_flux.safetensors",
    )
    title = "FLUX.2 Klein 4B" if len(pairs) == 22 else "FLUX.1"
    with pytest.raises(ValueError, match=rf"By .base. in its metadata it is a LoRA of {title} .*relation LoRA for"):
        pack.run("RelateRelationLoader", model=tiny_sdxl.model, lora_name="of_flux.safetensors", strength=1.0)
    with pytest.raises(ValueError, match="it was made for a UNet of context width 64 .* the model is a Flux"):
        load(None, name="small_relation_kohya.safetensors")
