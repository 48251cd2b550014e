"""The command in processes of its own: killed at any moment, and two of them as one.

``--multi_gpu`` is how accelerate is told to start several processes; with train.device = "cpu" they speak by gloo.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open

import training.finetune as finetune
from tests.recipe.tiny_recipe import write_all, write_config

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("world"))


def config_of(world, folder, steps, checkpoint_every):
    path = write_config(world / f"{folder}.toml", world)
    text = path.read_text().replace('/out"', f'/{folder}"').replace("steps = 4", f"steps = {steps}")
    path.write_text(
        text.replace("checkpoint_every = 2", f"checkpoint_every = {checkpoint_every}").replace(
            "every = 2\ncount", "every = 0\ncount"
        )
    )
    return path


def test_killed_at_a_random_moment_it_resumes_to_the_same_bytes(world):
    whole, killed = (config_of(world, folder, 15, 1) for folder in ("whole", "killed"))
    assert finetune.main([str(whole)]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "training.finetune", str(killed)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = world / "killed" / "checkpoint.safetensors"
    for _ in range(2400):
        if checkpoint.exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)  # somewhere between, or in the middle of, writing checkpoints
    process.send_signal(signal.SIGKILL)
    process.wait()
    with safe_open(checkpoint, "pt") as file:
        reached = int(file.metadata()["step"])
    assert 1 <= reached < 15
    assert not (world / "killed" / "hugging.safetensors").exists()
    assert finetune.main([str(killed)]) == 2
    assert finetune.main([str(killed), "--resume"]) == 0
    result = (world / "killed" / "hugging.safetensors").read_bytes()
    assert result == (world / "whole" / "hugging.safetensors").read_bytes()


def test_two_processes_are_one_with_the_same_global_batch(world):
    one, two = (config_of(world, folder, 6, 3) for folder in ("one", "two"))
    assert finetune.main([str(one)]) == 0
    launched = subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
            "--dynamo_backend",
            "no",
            "-m",
            "training.finetune",
            str(two),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    assert "2 processes x 1 micro-batches x 2" in launched.stdout
    assert launched.stdout.count("read back: 32 of 32 pairs") == 1

    def history(folder):
        rows = (world / folder / "history.csv").read_text().splitlines()[1:]
        return torch.tensor([[float(cell) for cell in row.split(",")] for row in rows])

    torch.testing.assert_close(history("one"), history("two"), atol=1e-5, rtol=1e-4)
    with (
        safe_open(world / "one" / "hugging.safetensors", "pt") as a,
        safe_open(world / "two" / "hugging.safetensors", "pt") as b,
    ):
        for key in a.keys():
            torch.testing.assert_close(a.get_tensor(key), b.get_tensor(key), atol=1e-4, rtol=1e-3)
