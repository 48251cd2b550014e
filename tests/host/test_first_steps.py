"""What a user meets before there are files, and on the miniworld: messages, preview colours, sizes."""

from __future__ import annotations

import logging

import pytest
import torch
from einops import rearrange
from torch.nn import functional as F


@pytest.fixture(scope="module")
def miniworld(pack):
    """The loader's outputs: model, clip, vae, two image encoders, identity model."""
    with torch.inference_mode():
        return pack.nodes["RelateMiniworldLoader"].execute().result


def cells(pack, vae, scale, name):
    """A creature's latent cells as the sampler sees them, and its colours in [-1, 1], a cell each."""
    folders, layout = pack.module("nodes.host_comfy.folders"), pack.module("nodes.drawing.layout")
    pixels = layout.read_picture(folders.creature_path(name))
    latent = scale(vae.encode(pixels))
    small = F.interpolate(rearrange(pixels, "b h w c -> b c h w"), size=latent.shape[-2:], mode="area")
    return rearrange(latent, "1 c h w -> (h w) c"), rearrange(small, "1 c h w -> (h w) c") * 2 - 1


@torch.inference_mode()
def test_previews_show_the_miniworlds_own_colours(pack, miniworld):
    ours = miniworld[0].model.latent_format
    latent, colours = cells(pack, miniworld[2], ours.process_in, "rabbit-pink-crown")  # not among those fitted
    drawn = latent @ torch.tensor(ours.latent_rgb_factors) + torch.tensor(ours.latent_rgb_factors_bias)
    assert F.mse_loss(drawn, colours) < min(colours.var(0).mean() / 3, 0.05)


@pytest.mark.parametrize("side, warns", [(128, False), (144, False), (512, True)])
@torch.inference_mode()
def test_a_size_far_from_the_miniworlds_own_warns(comfy, miniworld, caplog, side, warns):
    model, clip = miniworld[:2]
    (latent,) = comfy.EmptyLatentImage().generate(side, side)
    positive = comfy.CLIPTextEncode().encode(clip, "a fox")[0]
    with caplog.at_level(logging.WARNING):
        comfy.KSampler().sample(model, 0, 1, 1.0, "ddim", "ddim_uniform", positive, positive, latent)
    assert ("128 x 128 pictures" in caplog.text) is warns


@pytest.mark.parametrize("node_id, inputs, said", [
    ("RelateIdentityModelLoader", {"model_name": "no file yet"}, "ms_adapter.bin there, from https://huggingface.co"),
    ("RelateDreamOLoader", {"model": None, "clip": None, "embeddings": "no file yet", "preset": "v1.1", "turbo": False},
     "embedding.safetensors there, and the LoRAs"),
])  # fmt: skip
def test_a_loader_without_files_says_what_to_get(pack, node_id, inputs, said):
    with pytest.raises(ValueError, match=said):
        pack.nodes[node_id].execute(**inputs)


def test_a_list_without_files_has_an_entry_that_its_node_explains(pack):
    folders = pack.module("nodes.host_comfy.folders")
    assert folders.choices([]) == ["no file yet"] and folders.choices(["a"]) == ["a"]


@pytest.mark.parametrize("white, warns", [("border", True), ("middle", False), ("nothing given", False)])
def test_a_mask_that_keeps_the_background_is_noticed(pack, caplog, white, warns):
    image = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    middle = torch.zeros(1, 32, 48)
    middle[:, 4:28, 6:42] = 1
    mask = {"border": 1 - middle, "middle": middle, "nothing given": None}[white]
    with caplog.at_level(logging.WARNING):
        pack.run("RelateSubject", image=image, name="cat", **({} if mask is None else {"mask": mask}))
    assert ("keeps the background" in caplog.text) is warns


def test_the_folder_of_identity_models_is_there_after_the_start(pack, base_directory):
    assert (base_directory / "models" / "relate").is_dir()
