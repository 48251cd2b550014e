"""The miniworld as a base: its export is a diffusers folder that the command takes as any other."""

import pytest
import torch

import training.finetune as finetune
from core.relation.lora import load_relation
from tests.random_miniworld import save_random_miniworld
from tests.recipe.tiny_recipe import write_authors
from training.host_diffusers import unet_layout
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.text import encode_phrases, encode_prompts
from training.host_diffusers.vision import load_vision


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_miniworld(tmp_path_factory.mktemp("miniworld"))


def test_the_recipe_runs_on_the_miniworld(folder, tmp_path, capsys):
    write_authors(tmp_path / "data", count=2, size=(128, 128))
    settings = {
        "data.folder": tmp_path / "data",
        "models.base": folder,
        "output.folder": tmp_path / "out",
        "output.cache": tmp_path / "cache",
        "models.identity": folder / "identity.safetensors",
        "models.clip_vision": folder / "clip_vision",
        "train.steps": 2,
        "train.warmup_steps": 0,
        "models.local_clip_vision": folder / "local_clip_vision",
        "train.device": "cpu",
        "samples.every": 2,
        "samples.count": 1,
        "samples.steps": 2,
        "train.batch_size": 2,
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert finetune.main(["training/configs/relation_miniworld.toml", *overrides]) == 0
    said = capsys.readouterr().out
    assert "(miniworld, epsilon prediction" in said
    assert "with local tokens" in said
    lora = load_relation(
        tmp_path / "out" / "hugging.safetensors", unet_layout(open_base_model(folder).unet(torch.float32))
    )
    assert lora.metadata["base"] == "miniworld"
    assert (tmp_path / "out" / "samples.png").is_file()


def test_its_words_are_encoded_as_it_encodes_them(folder):
    from training.host_diffusers.miniworld.bundle import load_miniworld

    world, text = load_miniworld(folder), open_base_model(folder).text(torch.float32)
    prompts = ["a fox is hugging a bear", "a cat"]
    for ours, theirs in zip(encode_prompts(text, prompts), world.encode_prompts(prompts)):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(encode_phrases(text, ["fox"]), world.encode_phrases(["fox"]))


def test_its_two_encoders_are_told_apart(folder):
    pixels = torch.randn(1, 3, 112, 112)
    vision, local = (load_vision(folder / name, torch.float32) for name in ("clip_vision", "local_clip_vision"))
    assert not torch.allclose(vision(pixels).image_embeds, local(pixels).image_embeds)
