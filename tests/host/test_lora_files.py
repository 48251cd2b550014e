"""LoRA files beyond plain pairs, beside ComfyUI's own loader, peft and diffusers; on SDXL and on Flux."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.host import flux_studio, synthetic
from tests.host.flux_studio import fused_lora, split_lora
from tests.host.synthetic import SMALL
from tests.host.test_flux_loading import custom, merged

PATH = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"  # one of the tiny UNet's, 64 wide
MODULE = "lora_unet_" + PATH.replace(".", "_")


@pytest.fixture
def related(studio, pack, comfy, base_directory):
    """Weights of the tiny UNet with a file's LoRA, by our loader and by ComfyUI's own, and what they change."""

    def load(state, strength=1.0, metadata=None, stock=True, name="parts.safetensors"):
        save_file(state, base_directory / "models" / "loras" / name, metadata=metadata)
        ours, _ = pack.run("RelateRelationLoader", model=studio.base.model, lora_name=name, strength=strength)
        with torch.inference_mode():
            if not stock:
                return merged(ours)
            theirs = comfy.LoraLoaderModelOnly().load_lora_model_only(studio.base.model, name, strength)[0]
            return merged(ours), merged(theirs)

    return load


def lora():
    return synthetic.relation_lora("kohya", SMALL)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def modules():
    return {key.removesuffix(".alpha"): key for key in lora() if key.endswith(".alpha")}


PARTS = {
    "dora_scale of rows": lambda width, into: {"dora_scale": draw(width, 1).abs() + 0.5},
    "dora_scale of columns": lambda width, into: {"dora_scale": draw(1, into).abs() + 0.5},
    "lora_mid": lambda width, into: {"lora_mid.weight": draw(4, 4, 1, 1)},
    "diff": lambda width, into: {"diff": draw(width, into)},
    "diff_b": lambda width, into: {"diff_b": draw(width)},
    "w_norm": lambda width, into: {"w_norm": draw(width, into)},
}


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("part", PARTS)
def test_parts_beside_every_pair_act_as_in_comfyuis_loader(related, caplog, part, strength):
    state = lora()
    for module in modules():
        width, into = state[f"{module}.lora_up.weight"].shape[0], state[f"{module}.lora_down.weight"].shape[1]
        if part != "diff_b" or "to_out" in module:  # the others have no bias
            state |= {f"{module}.{suffix}": value for suffix, value in PARTS[part](width, into).items()}
    ours, theirs = related(state, strength)
    plain, _ = related(lora(), strength)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(name not in plain or not torch.equal(ours[name], plain[name]) for name in ours)
    assert "no text cross-attentions" not in caplog.text


def test_adapters_without_pairs_act_as_in_comfyuis_loader(related):
    """LoHa and LoKr of LyCORIS, and a whole difference."""
    state = lora()
    stems = list(modules())[:3]
    for stem in stems:
        for part in ("lora_down.weight", "lora_up.weight"):
            state.pop(f"{stem}.{part}")
    shape = load_shape(stems[0])
    state |= {
        f"{stems[0]}.hada_w1_a": draw(shape[0], 2),
        f"{stems[0]}.hada_w1_b": draw(2, shape[1]),
        f"{stems[0]}.hada_w2_a": draw(shape[0], 2),
        f"{stems[0]}.hada_w2_b": draw(2, shape[1]),
    }
    state |= {
        f"{stems[1]}.lokr_w1": draw(4, 4),
        f"{stems[2]}.diff": draw(*load_shape(stems[2])),
        f"{stems[1]}.lokr_w2": draw(*(side // 4 for side in load_shape(stems[1]))),
    }
    ours, theirs = related(state)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def load_shape(stem):
    state = lora()
    return state[f"{stem}.lora_up.weight"].shape[0], state[f"{stem}.lora_down.weight"].shape[1]


@pytest.mark.parametrize("alpha", [4, 8])
def test_pefts_dora_is_pefts_own_merge(studio, related, alpha):
    """The magnitude vector divides by the norms of the sum, as peft does."""
    peft = pytest.importorskip("peft")
    weight = studio.base.model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_q.weight
    layer = torch.nn.ModuleDict({"to_q": torch.nn.Linear(64, 64, bias=False)})
    layer["to_q"].weight.data.copy_(weight)
    config = peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["to_q"], use_dora=True)
    wrapped = peft.get_peft_model(layer, config)
    for number, (name, parameter) in enumerate(wrapped.named_parameters()):
        if "lora_B" in name or "magnitude" in name:
            parameter.data.add_(draw(*parameter.shape, seed=number).abs() * 0.1)
    given = peft.get_peft_model_state_dict(wrapped)
    state = {key.replace("model.to_q", f"model.{PATH}"): value.contiguous() for key, value in given.items()}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": alpha})}
    expected = wrapped.merge_and_unload()["to_q"].weight
    found = related(state, metadata=metadata, stock=False)
    (name,) = found
    torch.testing.assert_close(found[name], expected.detach(), atol=1e-5, rtol=1e-4)
    half = related(state, 0.5, metadata=metadata, stock=False)[name]
    torch.testing.assert_close(half, torch.lerp(weight, expected.detach(), 0.5), atol=1e-5, rtol=1e-4)


def test_diffusers_own_file_is_diffusers_own_scale(studio, related, tmp_path):
    """Rank 4 and alpha 8, saved by diffusers with its metadata: the delta is 2 up down."""
    diffusers = pytest.importorskip("diffusers")
    state = synthetic.relation_lora("peft", SMALL)
    layers = {key.removeprefix("base_model.model."): value for key, value in state.items()}
    metadata = {"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        str(tmp_path), unet_lora_layers=layers, unet_lora_adapter_metadata=metadata
    )
    from safetensors import safe_open

    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        written = file.metadata()
    saved = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    found = related(saved, metadata=written, stock=False)
    plain = related(state, stock=False, name="plain.safetensors")
    weights = studio.base.model.model.diffusion_model.state_dict()
    for name, weight in found.items():
        torch.testing.assert_close(weight - weights[name], 2 * (plain[name] - weights[name]), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("prefix", ["lycoris_", "lycoris_unet_"])
def test_lycoris_names(related, prefix):
    state = {key.replace("lora_unet_", prefix): value for key, value in lora().items()}
    ours, expected = related(state, stock=False), related(lora(), stock=False, name="plain.safetensors")
    assert all(torch.equal(ours[name], expected[name]) for name in expected) and ours.keys() == expected.keys()


def test_text_encoder_keys_are_called_what_they_are(related, caplog):
    state = lora() | {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": draw(4, 24),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": draw(48, 4),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(4.0),
        f"{MODULE}.bias": draw(64),
    }
    ours, plain = related(state, stock=False), related(lora(), stock=False, name="plain.safetensors")
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    assert "3 tensors of the text encoders" in caplog.text and "1 tensors of the biases" in caplog.text
    assert "no text cross-attentions" not in caplog.text


@pytest.fixture(scope="module")
def flux(pack, comfy, tiny):
    return flux_studio.make(pack, comfy, tiny)


@pytest.fixture
def on_flux(flux, comfy, base_directory):
    def load(state, strength=1.0, stock=True):
        save_file(state, base_directory / "models" / "loras" / "flux_parts.safetensors")
        ours = merged(custom(flux, "flux_parts.safetensors", strength))
        if not stock:
            return ours
        with torch.inference_mode():
            loader = comfy.LoraLoaderModelOnly()
            return ours, merged(loader.load_lora_model_only(flux.base.model, "flux_parts.safetensors", strength)[0])

    return load


TEXT = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": draw(4, 24),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": draw(48, 4),
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(4.0),
}


def test_text_encoder_pairs_with_alpha_on_flux(on_flux, caplog):
    ours, theirs = on_flux(split_lora(fused_lora()) | TEXT)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "3 tensors of the text encoders (ComfyUI's Load LoRA applies them) are not applied" in caplog.text


def test_dora_on_flux_acts_as_in_comfyuis_loader(on_flux, caplog):
    state = split_lora(fused_lora())
    scales = {
        key.replace("lora_B.weight", "dora_scale"): draw(value.shape[0], 1).abs() + 0.5
        for key, value in state.items()
        if "lora_B" in key
    }
    ours, theirs = on_flux(state | scales, 0.7)
    plain, _ = on_flux(state, 0.7)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and ours.keys() == theirs.keys()
    assert all(not torch.equal(ours[name], plain[name]) for name in plain) and "no LoRA of Flux" not in caplog.text


def test_pefts_magnitudes_on_flux(flux, on_flux):
    """Of one projection of a fused weight: only its own rows change, by peft's rule."""
    module = "transformer.transformer_blocks.1.attn.to_k"
    pair = {key: value for key, value in split_lora(fused_lora()).items() if key.startswith(f"{module}.")}
    magnitude = draw(64).abs() + 0.5
    found = on_flux({**pair, f"{module}.lora_magnitude_vector": magnitude}, stock=False)
    weight = flux.base.model.model.diffusion_model.state_dict()["double_blocks.1.img_attn.qkv.weight"]
    summed = weight[64:128] + pair[f"{module}.lora_B.weight"] @ pair[f"{module}.lora_A.weight"]
    expected = weight.clone()
    expected[64:128] = magnitude[:, None] * summed / summed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found["double_blocks.1.img_attn.qkv.weight"], expected, atol=1e-5, rtol=1e-4)


def test_magnitudes_survive_the_copy_that_comfyui_makes_where_memory_is_short(pack, comfy):
    """A model that does not fit the GPU gets its patches layer by layer; comfy.lora makes each of its own parts."""
    import comfy.lora
    from comfy.weight_adapter import LoRAAdapter

    pair = LoRAAdapter({"key"}, (draw(8, 2), draw(2, 6), 2.0, None, None, None))
    patches = {"key": pair}
    pack.module("nodes.host_comfy.weight_adapters").with_magnitudes(patches, {"key": draw(8).abs() + 0.5})
    ours = patches["key"]
    copies = [type(ours)(ours.loaded_keys, ours.weights)]
    if hasattr(comfy.lora, "prefetch_prepared_value"):
        copies.append(comfy.lora.prefetch_prepared_value(ours, [0], None, None, False))
    merged = [
        comfy.lora.calculate_weight([(1.0, adapter, 1.0, None, None)], draw(8, 6, seed=3), "key")
        for adapter in (pair, ours, *copies)
    ]
    assert all(torch.equal(merged[1], each) for each in merged[2:]) and not torch.equal(merged[0], merged[1])


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.model.transformer.", "", "diffusion_model."])
def test_prefixes_of_flux_loras(on_flux, prefix):
    state = {key.replace("transformer.", prefix, 1): value for key, value in split_lora(fused_lora()).items()}
    if prefix == "diffusion_model.":
        state = {
            key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): value
            for key, value in {
                "diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight": draw(4, 64),
                "diffusion_model.double_blocks.0.img_attn.proj.lora_B.weight": draw(64, 4),
            }.items()
        }
        assert len(on_flux(state, stock=False)) == 1
        return
    plain = on_flux(split_lora(fused_lora()), stock=False)
    ours = on_flux(state, stock=False)
    assert ours.keys() == plain.keys() and all(torch.equal(ours[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("alpha", draw(3), "alpha is no number"),
        ("alpha", torch.tensor(float("nan")), "alpha is no number"),
        ("lora_magnitude_vector", draw(5), "has 5 magnitudes, expected 64"),
        ("lora_A.weight", draw(4), r"is \(64, 4\) x \(4,\), expected \(64, r\) x \(r, 64\)"),
    ],
    ids=["alphas", "NaN", "magnitudes", "flat"],
)
def test_parts_that_do_not_fit_flux(on_flux, part, value, message):
    module = "transformer.transformer_blocks.1.attn.to_k"
    with pytest.raises(ValueError, match=f"flux_parts.safetensors: 1 pairs do not fit this model: .*{message}"):
        on_flux({**split_lora(fused_lora()), f"{module}.{part}": value}, stock=False)


FORMATS = {
    "nvfp4": "TensorCoreNVFP4Layout",
    "float8_e4m3fn": "TensorCoreFP8E4M3Layout",
    "mxfp8": "TensorCoreMXFP8Layout",
    "int8_tensorwise": "TensorWiseINT8Layout",
}


@pytest.fixture
def packed(flux):
    """The tiny Flux with the layers of its blocks in one of ComfyUI's packed formats, as a quantised file loads."""
    import comfy.model_management
    import comfy.model_patcher

    def pack_weights(kind):
        quant_ops = pytest.importorskip("comfy.quant_ops")
        if kind not in getattr(quant_ops, "QUANT_ALGOS", {}):
            pytest.skip(f"this ComfyUI has no {kind}")
        plain = flux.base.model.model.model_config
        config = type(plain)(dict(plain.unet_config))
        config.set_inference_dtype(torch.float32, None)
        config.quant_config = {"mixed_ops": True}
        base = config.get_model({}, device=torch.device("cpu"))
        weights = flux.base.model.model.diffusion_model.state_dict()
        base.diffusion_model.load_state_dict(weights, strict=False)
        for name, layer in base.diffusion_model.named_modules():
            if name.startswith(("double_blocks", "single_blocks")) and hasattr(layer, "_orig_shape"):
                quantised = quant_ops.QuantizedTensor.from_float(weights[f"{name}.weight"], FORMATS[kind])
                layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
                layer.quant_format, layer.layout_type = kind, FORMATS[kind]
        return comfy.model_patcher.ModelPatcher(
            base,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    return pack_weights


@pytest.mark.parametrize("kind", FORMATS)
def test_packed_weights_have_their_logical_shape(flux, packed, comfy, kind):
    model = packed(kind)
    stored = model.model.state_dict()["diffusion_model.double_blocks.0.img_attn.qkv.weight"].shape
    assert (tuple(stored) == (192, 32)) == (kind == "nvfp4")
    ours = custom(flux, "dreamo.safetensors", model=model)
    assert len(ours.patches) == 12 and ours.patches.keys() == custom(flux, "dreamo.safetensors").patches.keys()
    with pytest.raises(ValueError, match=r"12 pairs do not fit this model: .*expected \(192, r\) x \(r, 64\)"):
        custom(flux, "wide_flux.safetensors", model=model)


def test_packed_layers_of_other_packs(pack):
    """GGUF and bitsandbytes keep bytes in the weight; the layer says how it computes."""
    from types import SimpleNamespace

    shape = pack.module("nodes.host_comfy.flux.lora_patches").linear_shape
    layer = torch.nn.Linear(64, 192)
    layer.weight = torch.nn.Parameter(torch.zeros(6144, 1, dtype=torch.uint8), requires_grad=False)
    bare = torch.nn.Module()
    bare.weight = torch.nn.Parameter(torch.zeros(192, 64))
    model = SimpleNamespace(diffusion_model=SimpleNamespace(packed=layer, bare=bare))
    assert shape(model, "diffusion_model.packed.weight") == shape(model, "diffusion_model.bare.weight") == (192, 64)
