"""The miniworld's recipes at tiny size: every stage runs, what is killed goes on exactly, what is written loads."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest
import torch

pytest.importorskip("resvg_py")
pytest.importorskip("diffusers")

from training.common.errors import UserErrors
from training.engine.timed_loop import load_ema_weights
from training.host_diffusers import text
from training.host_diffusers.base_model import open_base_model
from training.host_diffusers.miniworld.architectures import CHANNELS
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.host_diffusers.miniworld.flux_files import load_flux
from training.miniworld.experiments import flux_curve, measure_flux, report
from training.miniworld.experiments.generate import generate, request_of
from training.miniworld.recipes import (
    autoencoder,
    classifiers,
    decoder,
    denoiser,
    encoded_corpus,
    export,
    flux,
    stages,
    train_all,
    warm_start,
)
from training.miniworld.recipes.corpus import Corpus
from training.miniworld.recipes.find_creatures import load_detector
from training.miniworld.recipes.flux_data import FluxData
from training.miniworld.recipes.labelled_scenes import FUSED, LabelledScenes
from training.miniworld.world.triplets import evaluation_plans

ROOT = Path(__file__).parents[2]
TINY = stages.SIZES["tiny"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every stage at tiny size, in this process."""
    out = tmp_path_factory.mktemp("miniworld")
    for name in stages.STAGES:
        assert all(stages.is_done(out, need) for need in stages.STAGES[name].needs), "the order of STAGES is a plan"
        assert not stages.is_done(out, name)
        lines = list(stages.run_stage(out, name, TINY, 5.0))
        assert lines and stages.is_done(out, name)
    return out


def test_every_needed_stage_exists_and_everything_is_exported():
    assert {need for stage in stages.STAGES.values() for need in stage.needs} <= set(stages.STAGES)
    upstream, seen = ["export"], set()
    while upstream:
        name = upstream.pop()
        seen.add(name)
        upstream += stages.STAGES[name].needs
    assert seen == set(stages.STAGES), "no stage is trained for nothing"


def test_a_full_run_fits_its_cores():
    """The trained stages' minutes, and what no second core can shorten."""
    total = sum(stage.minutes for stage in stages.STAGES.values())
    assert total <= 0.9 * stages.REFERENCE_MINUTES * stages.REFERENCE_CORES
    longest = {}
    for name, stage in stages.STAGES.items():
        longest[name] = stage.minutes + max((longest[need] for need in stage.needs), default=0.0)
    assert max(longest.values()) <= 0.95 * stages.REFERENCE_MINUTES
    assert stages.stage_minutes("unet", 165, 1) == pytest.approx(stages.STAGES["unet"].minutes / 2)


def test_what_is_exported_loads_draws_and_knows_its_channels(run):
    world = load_miniworld(run / "models")
    assert world.vae.config.latent_channels == world.unet.config.in_channels == CHANNELS
    facts = json.loads((run / "models" / "training.json").read_text())
    assert all(facts[name]["steps"] <= TINY.steps for name in export.RUNS) and facts["unet"]["samples"] == 12
    assert facts["corpus"]["scenes"] == TINY.scenes
    assert (run / "models" / "flux" / "embedding.safetensors").exists()
    assert not (run / "models" / "flux_index" / "embedding.safetensors").exists()
    assert load_detector(run / "models").accuracy["pictures"] == TINY.labelled
    assert len(world.words) > 900
    model = classifiers.load_shipped(run / "models")
    assert model.relation(torch.zeros(1, 3, 128, 128)).shape == (1, FUSED + 1)


def test_exported_latents_have_unit_variance_and_decode_to_the_same_pictures(run):
    corpus = Corpus.open(run / "corpus")
    pictures = torch.from_numpy(corpus.scenes[range(8)]).permute(0, 3, 1, 2).float() / 255
    trained = encoded_corpus.frozen_autoencoder(run)
    before = autoencoder.encode(trained, pictures)
    copies = autoencoder.decode(trained, before)
    shift, scale = encoded_corpus.latent_scale(run)
    export.absorb_scale(trained, shift, scale)
    after = autoencoder.encode(trained, pictures)
    assert torch.allclose(after, (before - shift) * scale, atol=1e-4)
    assert after.std() == pytest.approx(1.0, abs=0.1)
    assert torch.allclose(autoencoder.decode(trained, after), copies, atol=1e-4)


def test_classifiers_are_validated_on_fusions_too(run):
    accuracy = classifiers.validate(classifiers.load_trained(run), LabelledScenes.open(run / "labelled"))
    assert {"relation", "accepted", "refused", "emblem", "emblem_colour", "keypoint_error"} <= set(accuracy)


def test_the_index_variant_reads_references_by_their_number_alone(run):
    data = FluxData.open(run)
    batch = data.draw_without_placeholders(4, torch.Generator().manual_seed(3))
    assert (batch.ids < data.words.first).all()
    model = flux.load_trained(run, flux.INDEX.name)
    grids = ((8, 8), (4, 8))
    positions = model.positions((8, 8), grids)
    assert positions.shape == (96, 3) and positions[:64, 0].unique().tolist() == [1.0]
    assert positions[64:, 0].unique().tolist() == [2.0] and positions[:, 1:].min() == 0
    assert model.embedded((8, 8), grids) is None


def test_a_stage_that_is_done_is_not_run_again(run):
    assert train_all.ready(run, set()) == []
    assert train_all.train_all(run, 1.0, "tiny", 2) == 0


def test_a_stage_of_fixed_work_needs_no_minutes(run):
    (run / "plans" / "export.done").unlink()
    assert train_all.train_all(run, 1.0, "tiny", 1) == 0
    assert train_all.is_done(run, "export")


def test_a_failed_stage_is_reported_and_ends_the_run(tmp_path):
    (tmp_path / "plans").mkdir()
    for name in stages.STAGES:
        if name not in ("autoencoder", "export"):
            (tmp_path / "plans" / f"{name}.done").touch()
    assert train_all.train_all(tmp_path, 1.0, "tiny", 1) == 1, "there is no corpus"
    assert "expected a rendered corpus" in (tmp_path / "logs" / "autoencoder.log").read_text()


def test_the_budget_decides_the_steps_and_is_kept(run, monkeypatch):
    """A stage measures its pace, writes its plan, and a second call keeps that plan."""
    size = replace(TINY, steps=None)
    monkeypatch.setattr(stages, "PACE_FROM", 1)
    monkeypatch.setattr(stages, "PACE_TO", 2)
    for kind in (".json", ".done"):
        (run / "plans" / f"decoder{kind}").unlink()
    for path in (run / "decoder").iterdir():
        path.unlink()
    list(stages.run_stage(run, "decoder", size, 0.05))
    plan = json.loads((run / "plans" / "decoder.json").read_text())
    assert plan["steps"] >= 2
    list(stages.run_stage(run, "decoder", size, 50.0))
    assert json.loads((run / "plans" / "decoder.json").read_text()) == plan


def test_killed_training_goes_on_exactly(run, tmp_path):
    """kill -9 in the middle, the same command again: the same weights as never stopped."""
    for name in ("whole", "killed"):
        (tmp_path / name / "plans").mkdir(parents=True)
        os.symlink(run / "corpus", tmp_path / name / "corpus")
        (tmp_path / name / "plans" / "autoencoder.json").write_text('{"steps": 8, "batch": 4}')
    command = [sys.executable, "-m", "training.miniworld.recipes.train_all", "--size", "tiny", "--minutes", "9"]

    def start(name):
        log = open(tmp_path / f"{name}.log", "a")
        return subprocess.Popen(
            [*command, "--stage", "autoencoder", "--out", str(tmp_path / name)], cwd=ROOT, stdout=log
        )

    assert start("whole").wait() == 0
    process, pointer = start("killed"), tmp_path / "killed" / "autoencoder" / "latest.json"
    while not pointer.exists() or json.loads(pointer.read_text())["step"] < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= json.loads(pointer.read_text())["step"] < 8
    assert start("killed").wait() == 0
    whole, killed = (load_ema_weights(tmp_path / name / "autoencoder") for name in ("whole", "killed"))
    assert whole[1]["step"] == killed[1]["step"] == 8
    assert all(torch.equal(value, killed[0][name]) for name, value in whole[0].items())


def test_everything_about_the_exported_models_is_counted(run, tmp_path):
    """Untrained models: every row is counted and shown, and the card's table fits the facts."""
    card = run / "models" / "README.md"
    card.write_text("before\n<!-- measured -->\n<!-- /measured -->\n", encoding="utf-8")
    world = load_miniworld(run / "models")
    facts = report.write_measurements(world, card, 3, tmp_path, steps=1)
    assert json.loads((run / "models" / "measurements.json").read_text()) == facts
    assert set(report.ROWS) <= set(facts) and {"psnr", "l1"} <= set(facts["reconstruction"])
    for row in (facts[key] for key in report.ROWS):
        assert {"relation", "identity", "whole", "keypoints", "fused"} <= set(row)
    assert {"confusion", "emblem"} <= set(facts["renders"]), "two creatures of different looks with visible emblems"
    assert facts["look_alikes"]["relation"]["trials"] == 2
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == sorted(report.ROWS)
    assert card.read_text(encoding="utf-8").count("| ") > 7 * len(report.ROWS)


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(denoiser.shutil, "which", lambda name: None)
    model = denoiser.Denoiser(4).unet
    assert denoiser.compile_residual_blocks(model) is False
    assert all("forward" not in vars(resnet) for block in model.down_blocks for resnet in block.resnets)


def test_compiling_wraps_every_residual_block_and_renames_nothing(monkeypatch):
    monkeypatch.setattr(denoiser.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(denoiser.torch, "compile", lambda run, dynamic: run)
    model = denoiser.Denoiser(4).unet
    names = list(model.state_dict())
    assert denoiser.compile_residual_blocks(model) is True
    blocks = [part for name, part in model.named_modules() if name.split(".")[-2:-1] == ["resnets"]]
    assert blocks and all("forward" in vars(resnet) for resnet in blocks) and list(model.state_dict()) == names


def test_a_stage_stopped_by_its_steps_and_resumed_is_the_stage_never_stopped(run, tmp_path):
    settings = replace(decoder.SETTINGS, steps=4, batch_size=2, warmup_steps=1)
    found = []
    for name, stops in (("whole", (4,)), ("halves", (2, 4))):
        out = tmp_path / name
        out.mkdir()
        for part in ("encoded", "corpus", "autoencoder"):
            (out / part).symlink_to(run / part)
        for stop in stops:
            decoder.train(out, torch.device("cpu"), 1, settings, stop)
        found.append(load_ema_weights(out / "decoder"))
    assert found[0][1]["step"] == found[1][1]["step"] == 4
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    before = encoded_corpus.frozen_autoencoder(run, refined=False).state_dict()
    unmoved = [name for name in before if name.startswith(("encoder.", "quant_conv."))]
    assert unmoved and all(torch.equal(before[name], found[0][0][name]) for name in unmoved)
    assert not torch.equal(before["decoder.conv_out.weight"], found[0][0]["decoder.conv_out.weight"])


def test_less_of_a_corpus_can_be_encoded(run, tmp_path):
    for part in ("corpus", "clip", "distill", "autoencoder"):
        (tmp_path / part).symlink_to(run / part)
    extent = encoded_corpus.Extent(identities=5, views=1)
    list(encoded_corpus.encode(tmp_path, extent=extent))
    part, whole = encoded_corpus.EncodedCorpus.open(tmp_path), encoded_corpus.EncodedCorpus.open(run)
    assert len(part.references) == 5 and len(whole.references) == TINY.identities
    assert len(part.latents) == len(part.who) == len(part.prompt_rows) - 1 == (whole.who.max(1) < 5).sum()
    assert part.who.max() < 5
    assert len(FluxData.open(tmp_path).latents) <= len(part.latents)


def test_training_on_begins_with_exported_weights(run, tmp_path):
    begun = ["vae", "clip", "unet", "flux_dreamo", "flux_index"]
    assert warm_start.warm_start(tmp_path, run / "models") == begun
    assert warm_start.warm_start(tmp_path, run / "models") == []
    world = load_miniworld(run / "models")
    weights, state = load_ema_weights(tmp_path / "unet")
    assert all(torch.equal(weights[f"unet.{name}"], value) for name, value in world.unet.state_dict().items())
    assert all(torch.equal(weights[f"identity.{name}"], value) for name, value in world.identity.state_dict().items())
    assert state["step"] == TINY.steps
    assert {"vision", "text_l", "text_g"} <= {name.split(".")[0] for name in load_ema_weights(tmp_path / "clip")[0]}
    assert autoencoder.load_trained(tmp_path / "autoencoder").config.latent_channels == CHANNELS
    for name, folder in export.FLUX_FOLDERS.items():
        begun, shipped = (
            each.state_dict() for each in (flux.load_trained(tmp_path, name), load_flux(run / "models" / folder))
        )
        assert begun.keys() == shipped.keys()
        kept = [key for key in shipped if name != flux.INDEX.name or not key.startswith("tables.")]
        assert kept and all(torch.equal(begun[key], shipped[key]) for key in kept)
        assert export.flux_history(tmp_path, name) == export.flux_history(run, name)


def test_a_flux_begun_from_exported_weights_trains_on_without_its_base(run, tmp_path):
    warm_start.warm_start(tmp_path, run / "models")
    for name in ("corpus", "encoded"):
        (tmp_path / name).symlink_to(run / name, target_is_directory=True)
    before = flux.load_trained(tmp_path).state_dict()
    settings = replace(flux.SETTINGS, steps=TINY.steps + 1, batch_size=2)
    state = flux.train_dreamo(tmp_path, torch.device("cpu"), 5.0, settings)
    assert (state.step, state.samples) == (TINY.steps + 1, TINY.steps * TINY.batch + 2)
    after = flux.load_trained(tmp_path).state_dict()
    assert not torch.equal(after["transformer.x_embedder.weight"], before["transformer.x_embedder.weight"])
    assert not (tmp_path / flux.BASE.name).exists()


def test_a_curve_has_points_trained_less_and_more_than_the_shipped_weights(run, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_flux, "LAYOUTS", 2)
    monkeypatch.setattr(flux_curve, "generate", partial(flux_curve.generate, steps=1))
    for name in ("clip", "corpus", "encoded"):
        (tmp_path / name).symlink_to(run / name, target_is_directory=True)
    seen = TINY.steps * TINY.batch

    def curve(points, pictures=2):
        return list(flux_curve.flux_curve(tmp_path, points, pictures, TINY.batch, run / "models"))

    lines = curve([3 * seen, seen // 2])
    assert [line.split()[0] for line in lines] == [str(samples) for samples in (seen, seen // 2, 3 * seen)]
    folder = tmp_path / flux_curve.CURVE
    facts = json.loads((folder / "curve.json").read_text())
    assert len(facts["points"]) == 3 and all(row["species"]["trials"] == 2 for row in facts["points"].values())
    trained = {path.name: json.loads((path / "training.json").read_text()) for path in folder.glob("*-exported")}
    assert {name: run["samples"] for name, run in trained.items()} == {
        f"{samples}-exported": samples for samples in (seen // 2, 3 * seen)
    }
    models = [load_flux(path).state_dict() for path in (run / "models" / "flux", *sorted(folder.glob("*-exported")))]
    for one, other in combinations(models, 2):
        assert any(not torch.equal(one[key], other[key]) for key in one)
    monkeypatch.setattr(flux, "_fit", None)
    monkeypatch.setattr(flux_curve, "generate", None)
    assert curve([3 * seen, seen // 2]) == lines, "nothing is trained or drawn twice"
    with pytest.raises(UserErrors, match="expected 3 pictures of a point, got 2"):
        curve([3 * seen], pictures=3)
    with pytest.raises(UserErrors, match="the trunk in .* has passed this point"):
        curve([2 * seen])


def test_exported_models_load_as_any_base_does_and_draw(run):
    base, world = open_base_model(run / "models"), load_miniworld(run / "models")
    assert base.name == "miniworld"
    theirs = text.encode_prompts(base.text(torch.float32), ["a fox is hugging a bear"])
    assert all(torch.equal(*pair) for pair in zip(theirs, world.encode_prompts(["a fox is hugging a bear"])))
    requests = [request_of(plan, 0, index) for index, plan in enumerate(evaluation_plans("hugging", 2, 0))]
    one, again, other = (generate(world, requests, seed, steps=1) for seed in (1, 1, 2))
    assert one.shape == (2, 3, 128, 128) and 0 <= one.min() and one.max() <= 1
    assert torch.equal(one, again) and not torch.equal(one, other)
    plain = generate(world, requests, 0, steps=1, strength=0.0)
    world.identity.image_proj.proj_out.weight.add_(1.0)
    assert torch.equal(plain, generate(world, requests, 0, steps=1, strength=0.0)), "strength 0 is the untouched UNet"


def test_trained_models_are_the_exported_ones_in_half_precision(run):
    trained, read = export.assemble(run), load_miniworld(run / "models")
    prompts = ["a fox is chasing a bear in the snow"]
    for ours, theirs in zip(trained.encode_prompts(prompts), read.encode_prompts(prompts)):
        assert torch.allclose(ours, theirs, atol=2e-2)
    pixels = torch.rand(1, 3, 128, 128)
    assert torch.allclose(trained.to_latents(pixels), read.to_latents(pixels), atol=3e-2)
