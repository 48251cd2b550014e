"""What training writes, in ComfyUI: the exported file through both loaders, and ComfyUI's checkpoint in training."""

import pytest
import torch
from safetensors.torch import save_file

from core.relation.lora import RelationCard, save_relation
from tests.host.golden_unet import WIDTHS, GoldenUNet
from tests.recipe.tiny_recipe import write_tokenizer
from training.host_diffusers import attach_relation, relation_of, relation_parameters
from training.host_diffusers.base_model import BaseModelFiles
from training.host_diffusers.checkpoint_configs import SDXL
from training.host_diffusers.images import decode_latents
from training.host_diffusers.single_file import open_single_file


@pytest.fixture(scope="module")
def golden():
    return GoldenUNet()


@pytest.fixture(scope="module")
def trained(golden, tmp_path_factory):
    """A file as finetune exports it, and what the trained UNet says with it."""
    unet = golden.in_diffusers()
    attach_relation(unet, 4, 4.0, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in relation_parameters(unet).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        eps = unet(golden.latent, golden.timesteps, golden.text, added_cond_kwargs=golden.added_conditions()).sample
    path = tmp_path_factory.mktemp("trained") / "hugging.safetensors"
    save_relation(path, relation_of(unet, 4.0), RelationCard("miniworld", "hugging", rank=4, alpha=4.0))
    return path, eps


def test_the_stock_loader_makes_what_was_trained(golden, trained, comfy, tiny):
    import comfy.sd
    import comfy.utils

    path, eps = trained
    state = comfy.utils.load_torch_file(str(path))
    model, _ = comfy.sd.load_lora_for_models(golden.in_comfyui(tiny), None, state, 1, 0)
    with torch.inference_mode():
        model.patch_model()
        torch.testing.assert_close(golden.comfyui_eps(model), eps, atol=1e-5, rtol=0)
        assert (golden.comfyui_eps(golden.in_comfyui(tiny)) - eps).abs().max() > 1e-3


def test_the_packs_loader_makes_what_was_trained(golden, trained, pack, tiny):
    path, eps = trained
    model = golden.in_comfyui(tiny)
    layout = pack.module("nodes.host_comfy.sdxl.models").unet_layout(model)
    lora = pack.module("core.relation.lora").load_relation(path, layout)
    assert lora.report() == "32 of 32 pairs at 8 of 8 sites"
    assert lora.relation == "hugging"
    related = pack.module("nodes.host_comfy.sdxl.relation").attach_relation(model, lora, 1.0)
    with torch.inference_mode():
        related.patch_model()
        torch.testing.assert_close(golden.comfyui_eps(related), eps, atol=1e-5, rtol=0)


def test_one_checkpoint_file_is_the_same_model_in_both_hosts(golden, comfy, tiny, tmp_path):
    """UNet and VAE in the layout ComfyUI reads; the text encoders are tested without ComfyUI."""
    import comfy.utils

    vae = tiny.vae()
    names = comfy.utils.unet_to_diffusers(WIDTHS)
    state = {f"model.diffusion_model.{names[name]}": tensor for name, tensor in golden.weights.items()}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in vae.first_stage_model.state_dict().items()}
    state |= {f"conditioner.embedders.{part}.x": torch.zeros(1) for part in ("0.transformer", "1.model")}
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, tmp_path / "base.safetensors")
    write_tokenizer(tmp_path / "words")
    small = {**SDXL["vae"], "block_out_channels": [32] * 4, "layers_per_block": 1, "scaling_factor": 1.0}
    sizes = {**SDXL, "unet": golden.config["config"], "vae": small}
    base = BaseModelFiles(**open_single_file(tmp_path / "base.safetensors", str(tmp_path / "words"), sizes))
    unet = base.unet(torch.float32)
    assert all(torch.equal(unet.state_dict()[name], tensor) for name, tensor in golden.weights.items())
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = vae.decode(latents).movedim(-1, 1)
    torch.testing.assert_close(decode_latents(base.vae(), latents), theirs.float().cpu(), atol=1e-4, rtol=0)
