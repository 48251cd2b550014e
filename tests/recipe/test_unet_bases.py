"""Every base that a relation can be trained on, its UNet made narrow: from a folder to a file that only it takes."""

import json
from dataclasses import replace

import pytest
import torch

import training.finetune as finetune
from core.checkpoint import read_metadata
from core.relation.lora import load_relation
from core.relation.unet_bases import UNET_BASES, base_name
from tests.recipe.tiny_recipe import tiny_config, write_base, write_config
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.checkpoint_configs import CHECKPOINTS
from training.host_diffusers.errors import ModelFileErrors
from training.host_diffusers.unet import empty_unet, unet_layout


@pytest.fixture
def tiny_unets(monkeypatch):
    """Configs of narrow UNets by base; the rows of UNET_BASES are as narrow for this test."""
    unets = {name: tiny_config(configs["unet"]) for name, configs in CHECKPOINTS.items()}
    for name, unet in unets.items():
        monkeypatch.setitem(UNET_BASES, name, replace(UNET_BASES[name], spec=unet_layout(empty_unet(unet))))
    return unets


def test_every_base_but_the_miniworld_has_its_configs():
    assert CHECKPOINTS.keys() == UNET_BASES.keys() - {"miniworld"}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_row_tells_where_its_unet_has_text_cross_attentions(name):
    assert unet_layout(empty_unet(CHECKPOINTS[name]["unet"])) == UNET_BASES[name].spec


def test_the_miniworlds_row_is_its_unet():
    from training.host_diffusers.miniworld.architectures import UNET

    assert base_name(unet_layout(empty_unet(UNET))) == "miniworld"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_relation_is_trained_on_it_and_is_its_own(name, tiny_unets, tiny_root, tmp_path, capsys):
    (tmp_path / "data").symlink_to(tiny_root / "data")
    write_base(tmp_path / "base", tiny_unets[name])
    config = str(write_config(tmp_path / "c.toml", tmp_path, identity=False))
    spec = UNET_BASES[name].spec
    short = ("--set=train.steps=1", "--set=train.batch_size=1", "--set=samples.every=0")
    assert finetune.main([config, *short]) == 0
    assert f"({name}, epsilon prediction, {len(spec.sites())} text cross-attentions)" in capsys.readouterr().out
    file = tmp_path / "out" / "hugging.safetensors"
    metadata = read_metadata(file)
    assert (metadata["base"], metadata["modelspec.architecture"]) == (name, f"{UNET_BASES[name].architecture}/lora")
    assert load_relation(file, spec).report().startswith(f"{4 * len(spec.sites())} of {4 * len(spec.sites())} pairs")
    for other in UNET_BASES.keys() - {name}:
        with pytest.raises(ValueError, match=f"made for {UNET_BASES[name].title}"):
            load_relation(file, UNET_BASES[other].spec)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_parts_that_do_not_fit_are_refused_in_one_message(name, tiny_unets, tmp_path):
    write_base(tmp_path / "base", tiny_unets[name])
    file = tmp_path / "base" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_out_channels": [48, 96, 144]}))
    base = open_base_model(tmp_path / "base")
    with pytest.raises(ModelFileErrors, match="unet cannot be loaded") as report:
        base.unet(torch.float32)
    assert len(report.value.messages) == 1
