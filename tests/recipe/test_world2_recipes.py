"""The second world's recipes at tiny size: every stage runs, what is killed goes on exactly, what is written loads."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("resvg_py")
pytest.importorskip("diffusers")

from training.engine.timed_loop import load_ema_weights
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.miniworld.experiments2 import measure
from training.miniworld.recipes2 import (
    autoencoder,
    classifiers,
    denoiser,
    encoded_corpus,
    export,
    flux,
    stages,
    train_all,
)
from training.miniworld.recipes2.corpus import Corpus
from training.miniworld.recipes2.labelled_scenes import FUSED, RELATIONS, TRAITS, LabelledScenes, trait_row

ROOT = Path(__file__).parents[2]
TINY = stages.SIZES["tiny"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every stage at tiny size, in this process."""
    out = tmp_path_factory.mktemp("world2")
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
    assert world.vae.config.latent_channels == world.unet.config.in_channels == TINY.channels
    facts = json.loads((run / "models" / "training.json").read_text())
    assert all(facts[name]["steps"] == TINY.steps for name in export.RUNS)
    assert (run / "models" / "flux" / "embedding.safetensors").exists()
    assert not (run / "models" / "flux_index" / "embedding.safetensors").exists()
    assert len(world.words) > 900
    model = classifiers.load_exported(run / "models")
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
    data = flux.open_data(run)
    batch = flux._draw_without_placeholders(data, 4, torch.Generator().manual_seed(3))
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
    command = [sys.executable, "-m", "training.miniworld.recipes2.train_all", "--size", "tiny", "--minutes", "9"]

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
    """Untrained models: numbers exist and fit each other; renders judged by truth itself would be all right."""
    asked = ["--models", str(run / "models"), "--out", str(tmp_path)]
    code = measure.main([*asked, "--pictures", "4", "--steps", "2", "--threads", "1"])
    rows = {row["name"]: row for row in json.loads((tmp_path / "measured.json").read_text())}
    assert code == 0 and len(rows) == 7
    for row in rows.values():
        assert {"relation", "fused", "traits", "all five"} <= set(row), row
    assert {"confusion", "emblem"} <= set(rows["renders"]), "two creatures of different looks with visible emblems"
    assert "psnr" in rows["copies by the autoencoder"] and rows["look-alikes, sitting"]["pictures"] == 2
    assert len(list(tmp_path.glob("*.png"))) == 7


def test_answers_count_what_is_right_and_what_is_swapped():
    """A classifier that reads the plan itself: everything right; the casts exchanged: every differing trait swapped."""
    plans = measure.plans_of(("facing", "hugging"), 4)
    assert [plan.relation for plan in plans] == ["facing", "hugging", "facing", "hugging"]

    class Oracle:
        def __init__(self, casts):
            self.rows = torch.tensor([[trait_row(traits) for traits in cast] for cast in casts]).flatten(0, 1)

        def identity(self, crops):
            columns = zip(TRAITS.items(), self.rows.T)
            return {name: torch.eye(len(values))[column] for (name, values), column in columns}, None

        def relation(self, images):
            return torch.eye(FUSED + 1)[[RELATIONS.index("facing"), FUSED] * 2]

    images = torch.zeros(4, 3, 128, 128)
    right = measure.classify(Oracle([plan.cast for plan in plans]), images, plans)
    assert right.right.all() and not right.swapped.any() and right.emblem.all()
    assert right.relation.tolist() == [True, False, True, False] and right.fused.tolist() == [False, True, False, True]
    swapped = measure.classify(Oracle([plan.cast[::-1] for plan in plans]), images, plans)
    assert (swapped.swapped == swapped.differ).all() and swapped.differ.any()


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
