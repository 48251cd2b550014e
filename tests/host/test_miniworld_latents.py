"""The miniworld's sixteen latent channels in ComfyUI: their format, empty latents, previews, any size."""

from __future__ import annotations

import json

import pytest
import torch

from tests.random_miniworld import save_random_miniworld
from training.host_diffusers.miniworld.architectures import CHANNELS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_miniworld(tmp_path_factory.mktemp("miniworld"))


@pytest.fixture(scope="module")
def loaded(pack, folder):
    """MODEL, CLIP and VAE, finished as the loader's node does."""
    rooms = "nodes.host_comfy.miniworld."
    comfyui, latents = pack.module(rooms + "sdxl"), pack.module(rooms + "latents")
    model, clip, vae = comfyui.load_unet(folder), comfyui.load_clip(folder), comfyui.load_vae(folder)
    latents.finish_model(model, vae)
    return model, clip, vae


def test_sixteen_channels_are_a_format_of_their_own_and_four_are_sdxls(pack, loaded, tmp_path):
    import comfy.latent_formats

    latents = pack.module("nodes.host_comfy.miniworld.latents")
    own = loaded[0].model.latent_format
    assert own.latent_channels == CHANNELS and own.scale_factor == 1.0 and loaded[2].latent_channels == CHANNELS
    assert type(own) is comfy.latent_formats.LatentFormat, "neither SDXL's nor Flux's scale and colours"
    config = tmp_path / "vae" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"latent_channels": 4, "scaling_factor": 0.13025}))
    assert isinstance(latents.format_of(tmp_path), comfy.latent_formats.SDXL)
    assert len(own.latent_rgb_factors) == CHANNELS and len(own.latent_rgb_factors_bias) == 3
    assert comfy.latent_formats.LatentFormat.latent_rgb_factors is None, "ComfyUI's own class is untouched"


@pytest.mark.parametrize("width, height", [(128, 128), (144, 96)])
@torch.inference_mode()
def test_empty_latents_of_any_size_are_sampled_shown_and_decoded(comfy, loaded, width, height):
    import latent_preview

    model, clip, vae = loaded
    (empty,) = comfy.EmptyLatentImage().generate(width, height)
    positive = comfy.CLIPTextEncode().encode(clip, "a fox is hugging a bear")[0]
    (drawn,) = comfy.KSampler().sample(model, 0, 2, 1.0, "ddim", "ddim_uniform", positive, positive, empty)
    assert drawn["samples"].shape == (1, CHANNELS, height // 8, width // 8)
    form = model.model.latent_format
    previewer = latent_preview.Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    assert previewer.decode_latent_to_preview(drawn["samples"]).size == (width // 8, height // 8)
    (picture,) = comfy.VAEDecode().decode(vae, drawn)
    assert picture.shape == (1, height, width, 3)
    (again,) = comfy.VAEEncode().encode(vae, picture)
    assert again["samples"].shape == drawn["samples"].shape
