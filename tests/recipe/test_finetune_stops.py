"""Whatever ends a run, the message has a command that goes on with this very run; two runs never share a folder."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import training.finetune as finetune
from tests.recipe.tiny_recipe import write_all
from tests.recipe.tiny_runs import Crash, config_of, interrupt_at
from tests.surface import ROOT
from training.common.cli import shell_command
from training.engine import setup
from training.engine.validation import SamplePictures

SMALL = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def world(tiny_root, tmp_path):
    """Its own output, the shared models, data and cache; a space in its name."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    for name in ("base", "models", "data"):
        (folder / name).symlink_to(tiny_root / name)
    return folder


def start(config, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "training.finetune", config, *arguments],
        cwd=ROOT,
        env=SMALL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(found, process):
    while not found() and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


def command_in(message):
    """The command that a message offers."""
    return re.search(r"(?:go on|begin again|goes on|Go on) with: (.*)", message)[1]


@pytest.mark.parametrize(
    ("at", "said"),
    [(3, "The checkpoint of step 2 is whole; go on with: "), (0, "There is no checkpoint yet; begin again with: ")],
)
def test_the_printed_command_ends_the_same_run(world, monkeypatch, capsys, at, said):
    """With all overrides, quoted: typed into a shell it finishes, with the bytes of a run that was never stopped."""
    overrides = ["--set", "output.name=my hug", "--set", "train.seed=7", "--set", "samples.every=0"]
    whole, stopped = config_of(world, "a.toml", "a"), config_of(world, "b.toml", "b")
    assert finetune.main([whole, *overrides]) == 0
    restore = interrupt_at(monkeypatch, at, KeyboardInterrupt())
    assert finetune.main([stopped, *overrides]) == 130
    restore()
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    ended = subprocess.run(command_in(message), shell=True, cwd=ROOT, env=SMALL, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (world / "b" / "my hug.safetensors").read_bytes() == (world / "a" / "my hug.safetensors").read_bytes()


def test_resuming_is_asked_for_once_and_accelerate_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("python") or sys.executable)
    assert shell_command("training.finetune", ["a b.toml", "--resume"]).endswith(
        "python -m training.finetune 'a b.toml' --resume"
    )
    assert shell_command("training.finetune", ["c.toml"], 4) == (
        "accelerate launch --num_processes=4 -m training.finetune c.toml"
    )


def test_a_second_run_is_refused_and_two_fast_ctrl_c_are_one(world, capsys):
    config = config_of(world)
    arguments = ("--set", "output.checkpoint_every=1", "--set", "samples.every=0", "--set", "train.steps=100000")
    process = start(config, *arguments)
    wait_for((world / "out" / "checkpoint.safetensors").exists, process)
    for more in (["--resume"], ["--dry-run"], []):
        assert finetune.main([config, *arguments, *more]) == 2
        assert f"out is in use by another run (process {process.pid} on" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    time.sleep(0.03)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "is whole; go on with: " in message and "Traceback" not in message
    assert not (world / "out" / "in_use.lock").exists()


def test_a_terminating_system_is_told_how_to_go_on(world):
    config = config_of(world)
    process = start(config, "--set", "train.steps=100000", "--set", "output.checkpoint_every=1")
    wait_for((world / "out" / "checkpoint.safetensors").exists, process)
    process.terminate()
    _, message = process.communicate(timeout=60)
    assert process.returncode == 143 and "is whole; go on with: " in message and "Traceback" not in message


@pytest.mark.parametrize("limit", [2_000, 700_000], ids=["the cache", "the checkpoint"])
def test_a_disk_that_takes_no_more_stops_the_run_with_the_command(world, limit):
    """The system itself refuses: what safetensors says of that is not an OSError."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(config_of(world, lora="rank = 64"), "--set", "samples.every=0", preexec_fn=limited)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 1, message
    assert "Reading or writing failed: " in message and "cannot be written" in message and "Traceback" not in message
    assert "There is no checkpoint yet; begin again with: " in message
    assert not list(world.rglob("*.part*"))


def test_memory_that_is_too_small_names_settings_a_run_may_go_on_with(world, monkeypatch, capsys):
    import torch

    config = config_of(world)
    restore = interrupt_at(monkeypatch, 3, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert finetune.main([config]) == 1
    restore()
    message = capsys.readouterr().err
    added = re.findall(r"--set (\S+=\S+)", message)
    assert added == ["train.gradient_checkpointing=true", "train.micro_batch=1"]
    assert finetune.main([config, "--resume", *(part for one in added for part in ("--set", one))]) == 0


def test_an_unforeseen_error_names_the_command_too(world, monkeypatch, capsys):
    config = config_of(world)
    interrupt_at(monkeypatch, 3, Crash())
    with pytest.raises(Crash):
        finetune.main([config])
    assert "The checkpoint of step 2 is whole; go on with: " in capsys.readouterr().out


# Sample pictures of earlier parts of a run


def stopped_at_3(world, monkeypatch, *arguments):
    """A run that ended after the checkpoint of step 2; its config."""
    config = config_of(world)
    restore = interrupt_at(monkeypatch, 3, Crash())
    with pytest.raises(Crash):
        finetune.main([config, *arguments])
    restore()
    return config


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        ((), ("--set", "samples.count=3"), 3),
        ((), ("--set", "samples.count=1"), 1),
        (("--set", "samples.every=0"), (), 2),
        ((), ("--set", "samples.guidance=2"), 2),
    ],
)
def test_a_run_goes_on_with_other_sample_settings(world, monkeypatch, before, after, rows):
    config = stopped_at_3(world, monkeypatch, *before)
    assert finetune.main([config, "--resume", *after]) == 0
    columns = 2 if before else 3
    side = (256 + 8) * columns + 8
    assert Image.open(world / "out" / "samples.png").size == (side, 26 + rows * (256 + 22 + 8) + 8)


@pytest.mark.parametrize("lost", ["step-000002-1.png", "without-0.png", "step-000002-0.png"])
@pytest.mark.parametrize("how", ["deleted", "cut off"])
def test_lost_pictures_are_drawn_again_or_left_empty(world, monkeypatch, lost, how):
    config = stopped_at_3(world, monkeypatch)
    file = world / "out" / "samples" / lost
    before = Image.open(file).convert("RGB")
    file.unlink() if how == "deleted" else file.write_bytes(file.read_bytes()[:50])
    (world / "out" / "samples" / "step-by-step.png").write_bytes(b"the user's own")
    (world / "out" / "samples" / "step-000001.png").write_bytes(b"another one")
    assert finetune.main([config, "--resume"]) == 0
    if lost.startswith("without"):
        assert list(Image.open(file).convert("RGB").getdata()) == list(before.getdata())
    sheet = Image.open(world / "out" / "samples.png")
    left, row = (1 if "2-" in lost else 0) * 264 + 8, int(lost[-5])
    grey = sheet.getpixel((left + 100, 26 + row * 286 + 100)) == (205, 205, 212)
    assert grey == lost.startswith("step")


def test_pictures_without_the_lora_are_drawn_again_under_other_settings(world, monkeypatch):
    config, drawn = stopped_at_3(world, monkeypatch), []
    honest = SamplePictures._draw
    monkeypatch.setattr(SamplePictures, "_draw", lambda self, name: (drawn.append(name), honest(self, name))[1])
    assert finetune.main([config, "--resume", "--set", "samples.steps=3"]) == 0
    assert drawn == ["without", "step-000004"]


def test_a_thumbnail_is_drawn_where_the_last_pictures_are_gone(world, monkeypatch):
    config = config_of(world)
    with monkeypatch.context() as patched:
        patched.setattr(setup, "write_file", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            finetune.main([config])
    shutil.rmtree(world / "out" / "samples")
    assert finetune.main([config, "--resume"]) == 0
    assert (world / "out" / "hugging.safetensors").exists()


def test_models_that_break_after_the_plan_are_a_fault_not_a_traceback(world, tiny_root, capsys):
    """A folder of configs alone can be planned for; weights are asked for when they are needed."""
    (world / "base").unlink()
    shutil.copytree(tiny_root / "base", world / "base")
    for weights in (world / "base").rglob("*.safetensors"):
        weights.unlink()
    config = config_of(world)
    assert finetune.main([config, "--dry-run"]) == 0
    assert finetune.main([config]) == 2
    message = capsys.readouterr().err
    assert "models.base: " in message and "text_encoder cannot be loaded" in message and "Traceback" not in message
