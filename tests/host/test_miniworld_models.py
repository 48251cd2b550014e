"""The miniworld's models are the same networks in both hosts: random weights, saved as the recipes save them."""

from __future__ import annotations

import pytest
import torch

from tests.random_miniworld import save_random_miniworld
from training.host_diffusers.miniworld import architectures as sizes
from training.host_diffusers.miniworld import bundle

CAPTION = "a fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_miniworld(tmp_path_factory.mktemp("miniworld"))


@pytest.fixture(scope="module")
def diffusers(folder):
    return bundle.load_miniworld(folder)


@pytest.fixture(scope="module")
def comfyui(pack):
    return pack.module("nodes.host_comfy.miniworld.sdxl")


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_unet_is_the_same(comfyui, diffusers, folder):
    from comfy.ldm.modules.diffusionmodules.openaimodel import timestep_embedding

    draw = torch.Generator().manual_seed(0)
    latent = torch.randn(2, sizes.CHANNELS, 16, 16, generator=draw)
    context, pooled = diffusers.encode_prompts([CAPTION, "a bear"])
    ids, times = torch.full((2, 6), 128.0), torch.full((2,), 400.0)
    theirs = diffusers.unet(latent, times, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample
    conditions = torch.cat((pooled, timestep_embedding(ids.flatten(), 256).reshape(2, -1)), dim=1)
    model = comfyui.load_unet(folder)
    close(model.model.diffusion_model(latent, times, context=context, y=conditions), theirs)


@torch.inference_mode()
def test_the_text_encoders_are_the_same(pack, comfyui, diffusers, folder):
    clip = comfyui.load_clip(folder)
    context, pooled = diffusers.encode_prompts([CAPTION])
    ours, ours_pooled = clip.encode_from_tokens(clip.tokenize(CAPTION), return_pooled=True)
    close(ours, context)
    close(ours_pooled, pooled)
    encoders = pack.module("nodes.host_comfy.sdxl.encoders")
    close(encoders.encode_phrases(clip, ["fox"]), diffusers.encode_phrases(["fox"]))


@torch.inference_mode()
def test_the_vae_decodes_the_same_picture(comfyui, diffusers, folder):
    latent = torch.randn(1, sizes.CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1))
    picture = comfyui.load_vae(folder).decode(latent / sizes.AUTOENCODER["scaling_factor"])
    close(picture.movedim(-1, 1), diffusers.to_images(latent))


@torch.inference_mode()
def test_the_image_encoders_are_the_same(pack, comfyui, diffusers, folder):
    encoders, scene = pack.module("nodes.host_comfy.sdxl.encoders"), pack.module("core.scene")
    photograph = torch.rand(1, 3, 70, 50, generator=torch.Generator().manual_seed(2))
    subjects = scene.Scene((scene.Subject("fox", photograph),))
    found = encoders.encode_subjects(
        subjects,
        comfyui.load_clip_vision(folder / "clip_vision"),
        comfyui.load_clip_vision(folder / "local_clip_vision"),
        4,
    )
    close(found[0], diffusers.encode_subjects(photograph)[0])


def test_missing_parts_are_named(comfyui, tmp_path):
    assert comfyui.missing_parts(tmp_path) == [
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "clip_vision",
        "local_clip_vision",
        "identity.safetensors",
        "tokenizer/stock_ids.json",
    ]
