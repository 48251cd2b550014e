"""Every recipe of the miniworld for two steps, in order, on eight scenes: what one writes the next one reads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("resvg_py")

from core.identity.files import load_identity
from training.engine.timed_loop import load_ema_weights
from training.host_diffusers import text, unet_layout
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.miniworld.architectures import FOLDER, Words, build_unet
from training.host_diffusers.miniworld.bundle import load_miniworld, save_miniworld
from training.miniworld.experiments.generate import generate, request_of
from training.miniworld.recipes import clip, export, unet, vae
from training.miniworld.recipes import clipself as local
from training.miniworld.recipes import encoded_corpus as encoded
from training.miniworld.recipes import vae_decoder as refine
from training.miniworld.recipes.corpus import CorpusSize, render_corpus
from training.miniworld.recipes.tokenizer import reduce_tokenizer
from training.miniworld.recipes.warm_start import warm_start
from training.miniworld.world.triplets import evaluation_plans

CPU = torch.device("cpu")


def short(settings, steps=2):
    return replace(settings, steps=steps, batch_size=2, warmup_steps=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of all recipes."""
    out = tmp_path_factory.mktemp("miniworld")
    list(render_corpus(out / "corpus", CorpusSize(scenes=8, identities=4, portraits=2), 1))
    vae.train(out, CPU, 1, short(vae.SETTINGS))
    clip.train(out, CPU, 1, short(clip.SETTINGS))
    local.train(out, CPU, 1, short(local.SETTINGS))
    list(encoded.encode(out, CPU, encoded.PARTS))
    unet.train(out, CPU, 1, short(unet.SETTINGS))
    return out


@pytest.fixture(scope="module")
def folder(out, tmp_path_factory):
    """Its exported models."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "tokenizer").mkdir()
    for file in (FOLDER / "tokenizer").iterdir():
        (folder / "tokenizer" / file.name).write_bytes(file.read_bytes())
    written = save_miniworld(export.assemble(out), folder)
    assert written < 30e6, "all of models/miniworld stays below 30 MB"
    return folder


def test_a_run_stopped_and_resumed_is_the_run_never_stopped(out, tmp_path):
    (tmp_path / "encoded").symlink_to(out / "encoded")
    (tmp_path / "corpus").symlink_to(out / "corpus")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for run, stops in ((whole, (4,)), (halves, (2, 4))):
        run.mkdir()
        for name in ("encoded", "corpus"):
            (run / name).symlink_to(out / name)
        for stop in stops:
            refine.train(run, CPU, 1, short(refine.SETTINGS, stop))
    first, second = load_ema_weights(whole / "refine"), load_ema_weights(halves / "refine")
    assert first[1]["step"] == second[1]["step"] == 4
    assert all(torch.equal(value, second[0][name]) for name, value in first[0].items())


def test_checkpoint_files_stay_below_16_mib(out):
    files = list((out / "unet").glob("*.safetensors"))
    assert len(files) > 1 and max(file.stat().st_size for file in files) <= 16 * 2**20


def test_latents_have_unit_spread_under_sdxls_own_factor(out):
    latents = np.load(out / "encoded" / "latents.npy").astype(np.float32)
    assert latents.shape == (8, 4, 16, 16) and abs(latents.std() - 1) < 0.05


def test_refining_leaves_the_encoder_alone(out):
    before = encoded.frozen_vae(out, refined=False).state_dict()
    refine.train(out, CPU, 1, short(refine.SETTINGS))
    after = encoded.frozen_vae(out).state_dict()
    assert all(
        torch.equal(before[name], after[name]) for name in before if name.startswith(("encoder.", "quant_conv."))
    )
    assert not torch.equal(before["decoder.conv_out.weight"], after["decoder.conv_out.weight"])
    for file in (out / "refine").iterdir():
        file.unlink()


def test_exported_models_load_as_any_base_does(folder):
    base = open_base_model(folder)
    assert base.name == "miniworld"
    theirs = text.encode_prompts(base.text(torch.float32), ["a fox is hugging a bear"])
    ours = load_miniworld(folder).encode_prompts(["a fox is hugging a bear"])
    assert all(torch.equal(*pair) for pair in zip(theirs, ours))
    config = load_identity(folder / "identity.safetensors")[1]
    assert config.widths == tuple(site.width for site in unet_layout(build_unet()).sites())


def test_exported_models_are_the_trained_ones_in_half_precision(out, folder):
    trained, read = export.assemble(out), load_miniworld(folder)
    prompts = ["a fox is chasing a bear in the snow"]
    for ours, theirs in zip(trained.encode_prompts(prompts), read.encode_prompts(prompts)):
        assert torch.allclose(ours, theirs, atol=2e-2)
    pixels = torch.rand(1, 3, 128, 128)
    assert torch.allclose(trained.to_latents(pixels), read.to_latents(pixels), atol=2e-2)


def test_samples_are_pictures_and_the_seed_decides(folder):
    world = load_miniworld(folder)
    plans = evaluation_plans("hugging", 2, 0)
    requests = [request_of(plan, np.random.default_rng(0)) for plan in plans]
    one, again, other = (generate(world, requests, seed, steps=2) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 128, 128) and 0 <= one.min() and one.max() <= 1
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_strength_zero_is_the_untouched_unet(folder):
    world = load_miniworld(folder)
    request = request_of(evaluation_plans("facing", 1, 0)[0], np.random.default_rng(0))
    plain = generate(world, [request], 0, steps=1, strength=0.0)
    world.identity.image_proj.proj_out.weight.add_(1.0)
    assert torch.equal(plain, generate(world, [request], 0, steps=1, strength=0.0))


def test_the_reduced_tokenizer_splits_as_the_stock_one(tmp_path):
    """A stock tokenizer of three merges; of `hug bear` only two are ever used."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(letter + "</w>" for letter in letters),
        "hu",
        "hug</w>",
        "zz",
    ]
    stock = tmp_path / "stock"
    stock.mkdir()

    (stock / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (stock / "merges.txt").write_text("#version: 0.2\nh u\nz z\nhu g</w>\n")
    kept = reduce_tokenizer(stock, tmp_path / "small", ["hug bear"])
    merges = (tmp_path / "small" / "merges.txt").read_text().split("\n")[1:]
    assert [line for line in merges if line] == ["h u", "hu g</w>"]
    assert kept == len(tokens) - 1, "only the unused merge's token is gone"
    words = Words(tmp_path / "small")
    assert words.tokenizer.tokenize("hug bear") == ["hug</w>", "b", "e", "a", "r</w>"]
    assert [tokens[words.stock_ids[i]] for i in words.tokenizer("hug")["input_ids"]] == [
        "<|startoftext|>",
        "hug</w>",
        "<|endoftext|>",
    ]


def test_expanded_rows_are_the_stock_table():
    words = Words()
    rows = torch.arange(len(words), dtype=torch.float32)[:, None]
    table = words.expand_rows(rows)
    assert table.shape == (49408, 1)
    assert table[words.stock_ids[5]] == 5 and table[40000] == len(words) - 1


def test_training_on_begins_with_the_shipped_weights(tmp_path):
    assert warm_start(tmp_path) == ["vae", "clip", "unet"]
    assert warm_start(tmp_path) == []
    world = load_miniworld()
    weights, told = load_ema_weights(tmp_path / "unet")
    assert all(torch.equal(weights[f"unet.{name}"], value) for name, value in world.unet.state_dict().items())
    assert all(torch.equal(weights[f"identity.{name}"], value) for name, value in world.identity.state_dict().items())
    assert told["step"] == json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))["unet"]["steps"]
    assert {"vision", "text_l", "text_g"} <= {name.split(".")[0] for name in load_ema_weights(tmp_path / "clip")[0]}
