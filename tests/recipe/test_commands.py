"""What every command does alike: any output encoding, checked values of options, places it cannot write to, `~`."""

import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

import training.distill
import training.evaluate
import training.finetune
import training.miniworld.__main__ as miniworld
import training.prepare
from tests.recipe.tiny_recipe import write_all, write_config
from tests.surface import ROOT
from tests.unit.synthetic_triplets import write_authors
from training.common.errors import UserErrors
from training.common.folder_lock import locked
from training.data.dataset import load_triplets, prepare
from training.distill import folder_pictures
from training.engine.timed_loop import TrainerConfig, fit, load_ema_weights, save
from training.evaluation.relationbench import find_subjects

CREATURES = str(ROOT / "models" / "miniworld" / "creatures")


@pytest.fixture
def run(monkeypatch, capsys):
    """A command of this process with its arguments: exit code and what it said."""
    mains = {
        "finetune": training.finetune.main,
        "prepare": training.prepare.main,
        "evaluate": training.evaluate.main,
        "distill": training.distill.main,
        "miniworld": miniworld.main,
    }

    def command(name, *arguments):
        arguments = list(map(str, arguments))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            code = mains[name](arguments) if name in ("finetune", "prepare", "evaluate") else mains[name]()
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_a_narrow_terminal_ends_no_command(tmp_path, monkeypatch, run):
    """cp1252 has no Chinese: letters it lacks are escaped, and what was promised is there."""
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict", write_through=True)
    write_all(tmp_path)
    (tmp_path / "data").rename(tmp_path / "authors")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert run("prepare", "--convert", tmp_path / "authors", tmp_path / "拥抱")[0] == 0
    config = write_config(tmp_path / "c.toml", tmp_path)
    assert (
        run(
            "finetune",
            config,
            "--dry-run",
            "--set",
            f"data.folder={tmp_path / '拥抱'}",
            "--set",
            "relation=拥抱",
            "--set",
            f"output.folder={tmp_path / '出'}",
        )[0]
        == 0
    )
    assert run("evaluate", "relationbench", "--subjects", CREATURES, "--out", tmp_path / "拥抱.jsonl")[0] == 0
    said = narrow.buffer.getvalue().decode("cp1252")
    assert said.count("\\u62e5\\u62b1") > 4 and (tmp_path / "拥抱.jsonl").is_file()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("miniworld", "vae", "--steps", "0"), "--steps: expected a whole number from 1"),
        (("miniworld", "vae", "--steps", "many"), "--steps: expected a whole number from 1 to 2147483648, got many"),
        (("miniworld", "vae", "--minutes", "nan"), "--minutes: expected a finite number above 0, got nan"),
        (("miniworld", "vae", "--lr", "inf"), "--lr: expected a finite number above 0, got inf"),
        (("miniworld", "vae", "--device", "gpu"), "--device: expected cpu, cuda, cuda:1 or mps, got gpu"),
        (("miniworld", "measure", "--pictures", "-1"), "--pictures: expected a whole number from 1"),
        (("miniworld", "--out", "x" * 300, "vae"), "--out: expected a path that file systems take"),
        (("distill", "--model", "x", "--out", "a", "--batch", "0"), "--batch: expected a whole number from 1"),
        (("distill", "--model", "x", "--out", "", "--images", "i"), "--out: expected a path, got nothing"),
        (("evaluate", "p", "--prompts", "p.jsonl", "--device", "cuda:99"), "--device: this machine has no cuda:99"),
        (("evaluate", "miniworld", "--relation", "hugging", "--out", "o", "--seed", "-1"), "--seed: expected a whole"),
        (("prepare", "--convert", "a", "x" * 300), "--convert: expected a path that file systems take"),
    ],
)
def test_values_of_options_are_checked_when_they_are_read(run, tmp_path, monkeypatch, command, expected):
    monkeypatch.chdir(tmp_path)
    code, said = run(*command)
    assert code == 2 and expected in said and list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to_are_named_before_the_work(run, tmp_path):
    file = tmp_path / "a file"
    file.write_text("mine")
    write_authors(tmp_path / "authors", count=1)
    Image.new("RGB", (20, 20)).save(tmp_path / "1.png")
    (tmp_path / "p.jsonl").write_text(json.dumps({"picture": "1.png", "prompt": "a", "relation": "a"}))
    for command in (
        ("prepare", "--convert", tmp_path / "authors", file / "ours"),
        ("evaluate", "relationbench", "--subjects", CREATURES, "--out", file / "p.jsonl"),
        ("evaluate", "miniworld", "--relation", "hugging", "--out", file / "scenes"),
        ("evaluate", tmp_path, "--prompts", tmp_path / "p.jsonl", "--clip", "miniworld", "--out", file / "out"),
        ("distill", "--model", "ViT-B-32", "--images", CREATURES, "--out", file / "local.safetensors"),
    ):
        code, said = run(*command)
        assert code == 2 and f"{file} is a file; choose another folder" in said, (command, said)
    assert file.read_text() == "mine"


def test_home_is_found_in_every_command(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_all(tmp_path)
    config = write_config(tmp_path / "c.toml", tmp_path)
    config.write_text(config.read_text().replace(tmp_path.as_posix(), "~"))
    assert run("finetune", "~/c.toml", "--dry-run")[0] == 0
    assert run("finetune", "~/c.toml", "--preview-data=~/sheet.png")[0] == 0
    assert run("prepare", "--convert", "~/data", "~/ours")[0] == 0
    assert run("evaluate", "relationbench", f"--subjects={CREATURES}", "--out=~/p.jsonl")[0] == 0
    assert all((tmp_path / name).exists() for name in ("sheet.png", "ours/triplets.jsonl", "p.jsonl"))


@pytest.mark.parametrize("data", ["prompts in UTF-16", "a prompt in cp1252", "a list", "a mark"])
def test_prompts_files_of_any_encoding_are_read_or_named(run, tmp_path, data):
    Image.new("RGB", (20, 20)).save(tmp_path / "1.png")
    line = json.dumps({"picture": "1.png", "prompt": "un café", "relation": "x", "seed": True}, ensure_ascii=False)
    coded = {
        "prompts in UTF-16": line.encode("utf-16"),
        "a prompt in cp1252": line.encode("cp1252"),
        "a list": b"[1]",
        "a mark": b"\xef\xbb\xbf" + line.encode(),
    }[data]
    (tmp_path / "p.jsonl").write_bytes(coded)
    code, said = run("evaluate", tmp_path, "--prompts", tmp_path / "p.jsonl", "--clip", "miniworld")
    expected = {
        "a list": "line 1: expected a JSON object, got [1]",
        "a mark": "'seed': expected a whole number, got True",
    }
    assert code == 2 and expected.get(data, "p.jsonl: expected text in UTF-8, got") in said


LITTER = (
    "._cat.png",
    "__MACOSX/cat.png",
    ".ipynb_checkpoints/cat.png",
    ".git/cat.png",
    "@eaDir/cat.png",
    "dog/._1.png",
)


@pytest.fixture
def pictures(tmp_path):
    for name in ("cat.png", "dog/1.png", *LITTER):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (40, 30), (0, 255, 0, 0)).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def test_litter_in_folders_of_pictures_is_no_subject_and_no_picture(pictures):
    assert [name for name, _ in find_subjects(pictures)] == ["cat", "dog"]
    import numpy as np

    batch = folder_pictures(pictures)(np.random.default_rng(0), 8)
    assert batch.shape == (8, 3, 512, 512) and batch.min() == 1  # transparent is white here too
    for name in ("cat.png", "dog/1.png"):
        (pictures / name).unlink()
    with pytest.raises(UserErrors, match="expected pictures .* found none"):
        folder_pictures(pictures)


def test_broken_pictures_end_distillation_before_it_begins(pictures, run, tmp_path):
    for name in ("a.png", "b.jpg"):
        (pictures / name).write_bytes(b"<!DOCTYPE html>")
    code, said = run("distill", "--model", "nowhere", "--images", pictures, "--out", tmp_path / "o.safetensors")
    assert code == 2 and "3 faults" in said and "a.png: not a whole picture" in said and "b.jpg" in said
    assert "--model nowhere" in said and not (tmp_path / "o.run").exists()


def test_pictures_mean_the_same_everywhere(tmp_path):
    """A cut-out fox as target, concept and mask: on white, and where it is opaque."""
    write_authors(tmp_path, count=1, swapped=())
    for file in ("videos/0/concept0.png", "videos/0/motion.png"):
        image = Image.open(tmp_path / file).convert("RGBA")
        image.paste((0, 255, 0, 0), (0, 0, 20, 20))
        image.save(tmp_path / file)
    mask = Image.open(tmp_path / "masks/0/motion0.png")
    black = Image.new("RGBA", mask.size, (0, 0, 0, 0))
    black.putalpha(mask)
    from training.config import DataConfig

    config = DataConfig(folder=str(tmp_path), image_px=96)
    plain = prepare(load_triplets(config, "")[0], config)
    black.save(tmp_path / "masks/0/motion0.png")
    cut_out = prepare(load_triplets(config, "")[0], config)
    assert torch.equal(plain.boxes, cut_out.boxes) and torch.equal(plain.region, cut_out.region)
    assert (cut_out.photographs[0][:, :20, :20] == 1).all() and (cut_out.target[:, :20, :20] == 1).all()


# Training in a folder: distill and the miniworld


def tiny(settings=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    return model, lambda step, generator: {"loss": model(torch.randn(1, 2, generator=generator)).square().sum()}


def test_two_trainings_in_one_folder_are_refused(tmp_path, run):
    (tmp_path / "corpus").mkdir()
    model, loss = tiny()
    with locked(tmp_path / "vae"):
        with pytest.raises(ValueError, match="vae is in use by another run"):
            fit(TrainerConfig("vae", 1, 1, 1e-3), model, loss, tmp_path / "vae", torch.device("cpu"), 1)


@pytest.mark.parametrize("how", ["latest.json is cut off", "a shard is cut off", "another model"])
def test_a_broken_checkpoint_is_named(tmp_path, how):
    model, loss = tiny()
    settings, cpu = TrainerConfig("vae", 2, 1, 1e-3), torch.device("cpu")
    fit(settings, model, loss, tmp_path, cpu, 1)
    if how == "another model":
        model = torch.nn.Linear(3, 3)
    else:
        file = next(tmp_path.glob("*.safetensors" if "shard" in how else "latest.json"))
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserErrors, match="of another model" if how == "another model" else "begin anew"):
        fit(settings, model, loss, tmp_path, cpu, 1)


def test_what_trains_in_a_folder_needs_what_came_before(run, tmp_path):
    code, said = run("miniworld", "--out", tmp_path, "vae", "--steps", 1)
    assert code == 2 and "corpus" in said and "Traceback" not in said


def test_a_stop_of_the_miniworld_names_its_own_command(run, tmp_path, monkeypatch):
    monkeypatch.setitem(
        miniworld.TRAINERS,
        "vae",
        (lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()), *miniworld.TRAINERS["vae"][1:]),
    )
    code, said = run("miniworld", "--out", tmp_path, "vae")
    assert code == 130
    assert said.endswith(f"Go on with: {said.split('Go on with: ')[1]}")
    assert f"-m training.miniworld --out {tmp_path} vae" in said


def test_a_stopped_demo_prints_the_command_that_goes_on_with_it(run, tmp_path, monkeypatch):
    """`make demo`: the training is one of its steps, with settings of its own; typed again, it resumes it."""
    from training.miniworld.experiments import demo
    from training.miniworld.experiments.train_relation import AblationVariant

    short = AblationVariant(
        triplets=2,
        overrides=(
            "train.steps=4",
            "train.warmup_steps=0",
            "train.batch_size=1",
            "samples.every=0",
            "train.device=cpu",
            "output.checkpoint_every=2",
        ),
    )
    monkeypatch.setattr(demo.run, "__defaults__", (short, 2, "", 1))
    honest = training.finetune.one_step

    def one_step(*arguments):
        if arguments[5] == 3:
            raise KeyboardInterrupt
        return honest(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(training.finetune, "one_step", one_step)
        code, said = run("miniworld", "--out", tmp_path / "my demo", "demo")
    assert code == 130
    printed = re.findall(r"(?:go on|Go on) with: (.*)", said)
    assert len(set(printed)) == 1 and "The checkpoint of step 2 is whole" in said
    words = __import__("shlex").split(printed[0])
    assert words[1:] == ["-m", "training.miniworld", "--out", str(tmp_path / "my demo"), "demo"]
    assert shutil.which(words[0]) and subprocess.run([words[0], "-c", "import torch"], cwd=ROOT).returncode == 0
    code, said = run("miniworld", *words[3:])  # in this process, where the demo is short
    assert code == 0 and "step 4/4" in said and "step 1/4" not in said
    assert os.path.exists(tmp_path / "my demo" / "sheet.png")


def test_a_saved_state_survives_a_disk_that_takes_no_more(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    import core.checkpoint

    model, loss = tiny()
    state = fit(TrainerConfig("vae", 2, 1, 1e-3), model, loss, tmp_path, torch.device("cpu"), 1)
    before = load_ema_weights(tmp_path)[1]

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(core.checkpoint, "save_file", full)
    state.step = 3
    with pytest.raises(OSError, match="cannot be written .*No space left"):
        save(tmp_path, state, model, torch.optim.AdamW(model.parameters()))
    assert load_ema_weights(tmp_path)[1] == before
