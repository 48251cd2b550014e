"""Every base that a relation can be trained on, in ComfyUI: opened as training opens it, given its relations alone."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from core.relation.lora import RelationCard, save_relation
from core.relation.unet_bases import UNET_BASES
from tests.recipe.tiny_recipe import WIDTH_G, tiny_config, write_tokenizer
from training.host_diffusers import attach_relation, relation_of, unet_layout
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.checkpoint_configs import CHECKPOINTS
from training.host_diffusers.unet import empty_unet

HEAD = 16


def comfy_sizes(spec, adm: int) -> dict:
    """A UNet in ComfyUI's words."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": spec.widths[0],
        "channel_mult": [width // spec.widths[0] for width in spec.widths],
        "num_res_blocks": list(spec.resnets),
        "use_linear_in_transformer": True,
        "transformer_depth": [depth for level in spec.down for depth in level],
        "transformer_depth_output": [depth for level in spec.up for depth in level][::-1],
        "transformer_depth_middle": spec.middle or -1,
        "context_dim": spec.context_width,
        "adm_in_channels": adm,
    }


def in_comfyuis_words(unet: torch.nn.Module, adm: int) -> dict[str, torch.Tensor]:
    """A diffusers UNet's weights by ComfyUI's own map."""
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(comfy_sizes(unet_layout(unet), adm))
    return {names[name]: tensor for name, tensor in unet.state_dict().items()}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_comfyui_opens_it_and_sees_the_same_cross_attentions(comfy, pack, name):
    """At full size, without weights: what ComfyUI detects in a checkpoint's keys and shapes."""
    import comfy.model_detection

    config = CHECKPOINTS[name]["unet"]
    state = in_comfyuis_words(empty_unet(config), config["projection_class_embeddings_input_dim"])
    detected = comfy.model_detection.model_config_from_unet(state, "")
    assert detected is not None, "no class of comfy.supported_models has this UNet"
    model = SimpleNamespace(model=SimpleNamespace(model_config=detected))
    layout = pack.module("nodes.host_comfy.sdxl.models").unet_layout(model)
    assert asdict(layout) == asdict(UNET_BASES[name].spec)
    assert pack.module("core.relation.unet_bases").base_name(layout) == name


@pytest.fixture
def tiny_unets(pack, monkeypatch):
    """Narrow UNets with weights by base; the rows of UNET_BASES are as narrow for this test, the pack's and ours."""
    torch.manual_seed(0)
    theirs = pack.module("core.relation.unet_bases").UNET_BASES
    spec_of = pack.module("core.cross_attention_layers").UNetSpec
    unets = {}
    for name, configs in CHECKPOINTS.items():
        with torch.device("meta"):
            unet = empty_unet({**tiny_config(configs["unet"]), "projection_class_embeddings_input_dim": WIDTH_G + 1536})
        unets[name] = unet.to_empty(device="cpu").requires_grad_(False)
        for parameter in unet.parameters():
            parameter.normal_(std=0.05)
        spec = unet_layout(unet)
        monkeypatch.setitem(UNET_BASES, name, replace(UNET_BASES[name], spec=spec))
        monkeypatch.setitem(theirs, name, replace(theirs[name], spec=spec_of(**asdict(spec))))
    return unets


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_training_opens_comfyuis_checkpoint_of_it(comfy, tiny_unets, monkeypatch, tmp_path, name):
    config = {key: value for key, value in tiny_unets[name].config.items() if not key.startswith("_")}
    state = in_comfyuis_words(tiny_unets[name], WIDTH_G + 1536)
    state = {f"model.diffusion_model.{key}": tensor for key, tensor in state.items()}
    for part in ("first_stage_model", "conditioner.embedders.0.transformer", "conditioner.embedders.1.model"):
        state[f"{part}.x"] = torch.zeros(1)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "base.safetensors")
    write_tokenizer(tmp_path / "words")
    monkeypatch.setitem(CHECKPOINTS, name, {**CHECKPOINTS[name], "unet": config})
    base = open_base_model(tmp_path / "base.safetensors", str(tmp_path / "words"))
    assert base.name == name
    weights = base.unet(torch.float32).state_dict()
    assert all(torch.equal(weights[key], tensor) for key, tensor in tiny_unets[name].state_dict().items())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_node_takes_its_relation_and_no_others(pack, tiny, tiny_unets, tmp_path, name):
    load_onto = pack.module("nodes.pipelines.load_relation").load_onto
    unet = tiny_unets[name]
    attach_relation(unet, 4, 4.0, torch.Generator().manual_seed(0))
    save_relation(tmp_path / "hug.safetensors", relation_of(unet, 4.0), RelationCard(name, "hugging", rank=4, alpha=4))
    for base, other in tiny_unets.items():
        model = tiny.model("sdxl", unet=comfy_sizes(UNET_BASES[base].spec, WIDTH_G + 1536), head=HEAD)
        if other is unet:
            clone, relation = load_onto(model, str(tmp_path / "hug.safetensors"), "hug", 1.0)
            assert relation == "hugging" and len(clone.patches) == 4 * len(UNET_BASES[base].spec.sites())
        else:
            with pytest.raises(ValueError, match=f"made for {UNET_BASES[name].title}"):
                load_onto(model, str(tmp_path / "hug.safetensors"), "hug", 1.0)
