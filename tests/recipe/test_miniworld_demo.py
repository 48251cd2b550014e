"""make demo's own steps on the shipped weights, as short as they go: what is written, what is kept, what is told."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from training.common.cli import TrainingAborted
from training.host_diffusers.miniworld.bundle import load_miniworld
from training.miniworld.experiments import ablate, ablation_report, demo, failures, text_embedding
from training.miniworld.experiments.generate import Drawing, generate_images, mismatched_identity
from training.miniworld.experiments.keypoint_probe import DISTANCES, joint_distances
from training.miniworld.experiments.train_relation import AblationVariant, with_relation
from training.miniworld.world.traits import draw_cast
from training.miniworld.world.triplets import evaluation_plans

SHORT = AblationVariant(
    triplets=2,
    overrides=("train.steps=2", "train.warmup_steps=0", "train.batch_size=1", "samples.every=0", "train.device=cpu"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, demo.run(out, SHORT, pictures=2)


def test_it_writes_a_sheet_a_report_and_the_relation(finished):
    out, outcome = finished
    assert Image.open(out / "sheet.png").size[0] > 400
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "'hugging' is seen" in text and "learnt from 2 triplets" in text
    facts = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert facts["pictures"] == 2 and facts["with"]["relation"]["trials"] == 2
    assert set(facts["judges"]) >= {"relation", "species", "fur"}
    assert (out / "hugging.safetensors").stat().st_size > 10_000
    assert outcome.seconds["learning"] > 0


def test_a_second_call_learns_nothing_anew_and_draws_the_same(finished, capsys):
    out, first = finished
    before = (out / "work" / "run" / "relation.safetensors").stat().st_mtime_ns
    second = demo.run(out, SHORT, pictures=2, workers=2)
    assert (out / "work" / "run" / "relation.safetensors").stat().st_mtime_ns == before
    assert torch.equal(first.with_lora, second.with_lora) and torch.equal(first.without, second.without)
    assert "learning in an earlier call" in (out / "report.md").read_text(encoding="utf-8")
    assert "step 1/2" not in capsys.readouterr().out


def test_a_relation_of_another_base_is_learnt_again(finished):
    out, _ = finished
    (out / "work" / "base.sha256").write_text("of other weights", encoding="utf-8")
    before = (out / "work" / "run" / "relation.safetensors").stat().st_mtime_ns
    demo.run(out, SHORT, pictures=2)
    assert (out / "work" / "run" / "relation.safetensors").stat().st_mtime_ns != before


def test_the_relation_changes_the_picture_and_leaves_the_world_as_it_was(finished):
    out, _ = finished
    world, plans = load_miniworld(), evaluation_plans("hugging", 1, 5)
    weights = {name: value.clone() for name, value in world.unet.state_dict().items()}
    plain = generate_images(world, plans, 5)
    with with_relation(world, out / "hugging.safetensors", strength=50.0):
        assert not torch.equal(generate_images(world, plans, 5), plain)
    assert all(torch.equal(value, weights[name]) for name, value in world.unet.state_dict().items())
    assert not torch.equal(generate_images(world, plans, 5, Drawing(boxes="apart")), plain)
    assert not torch.equal(generate_images(world, plans, 5, Drawing(grid=0)), plain)
    swapped = [generate_images(world, plans, 5, Drawing(stranger=which)) for which in ("clip", "local")]
    assert not any(torch.equal(images, plain) for images in swapped) and not torch.equal(*swapped)


def test_a_stranger_is_another_of_the_same_species():
    rng = np.random.default_rng(0)
    for traits in draw_cast(rng, 8, held_out=True):
        other = mismatched_identity(traits, rng)
        assert other.species == traits.species and other.emblem != traits.emblem


def test_joints_tell_who_is_who_and_predictions_are_near_the_truth():
    """The distances behind the keypoint loss, on four scenes."""
    found = joint_distances(load_miniworld(), "hugging", 4, 0)
    assert found.keys() == DISTANCES.keys()
    assert found["error"] < found["prediction"] < found["stranger"] > found["truth"]


def test_the_ablation_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "VARIANTS", {name: SHORT for name in ablate.VARIANTS})
    count = partial(ablate.ablate, tmp_path, pictures=2, seeds=(0,), rows=ablate.ROWS[:3])
    lines = list(count(minutes=0))
    assert lines == ["distances between joints", "3 cells are missing; the same command goes on with them"]
    lines = list(count(minutes=60, skip=("base alone",)))
    assert [line.split(",")[0] for line in lines] == ["the renderer's own", "full"]
    lines = list(count(minutes=60))
    assert [line.split(",")[0] for line in lines] == ["base alone"]
    assert list(count(minutes=60)) == []
    ablate.write_failures(tmp_path, (0,))
    assert Image.open(tmp_path / "failures.png").width > 4 * failures.SIDE, "two steps teach no relation"
    (tmp_path / "base.sha256").write_text("of other weights", encoding="utf-8")
    with pytest.raises(TrainingAborted, match="Choose another --out"):
        next(count(minutes=60))
    assert set(ablation_report.results(tmp_path, seeds=(0,))) == {"the renderer's own", "base alone", "full"}


def test_a_picture_that_failed_is_drawn_again_as_it_was():
    world, plans = load_miniworld(), evaluation_plans("hugging", 2, 1000)
    torch.testing.assert_close(
        failures.draw_again(world, plans, 1000, 1), generate_images(world, plans, 1000)[1], atol=1e-5, rtol=0
    )


def test_a_text_embedding_is_learnt_and_nothing_else(tmp_path):
    world, prompt = load_miniworld(), "a fox is hugging a bear in a meadow"
    weights = {name: value.clone() for name, value in world.text_g.state_dict().items()}
    before = world.encode_prompts([prompt, "a fox is riding a bear in a meadow"])
    file = text_embedding.train_text_embedding(world, "hugging", 2, tmp_path, seed=0, steps=2)
    stored = load_file(file)
    assert [tuple(stored[name].shape) for name in text_embedding.ENCODERS] == [(1, 64), (1, 128)]
    with text_embedding.with_text_embedding(world, file):
        inside = world.encode_prompts([prompt, "a fox is riding a bear in a meadow"])
    assert not torch.equal(inside[0][0], before[0][0]) and not torch.equal(inside[1][0], before[1][0])
    assert torch.equal(inside[0][1], before[0][1]), "other words are as they were"
    after = world.encode_prompts([prompt, "a fox is riding a bear in a meadow"])
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert all(torch.equal(value, weights[name]) for name, value in world.text_g.state_dict().items())
    stamp = file.stat().st_mtime_ns
    text_embedding.train_text_embedding(world, "hugging", 2, tmp_path, seed=0)
    assert file.stat().st_mtime_ns == stamp, "a finished file is taken"
