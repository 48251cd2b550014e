"""The training commands in processes of their own: killed at any moment, and two of them as one.

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
import training.subject as subject
from tests.recipe.tiny_flux import write_flux, write_flux_config, write_tables
from tests.recipe.tiny_recipe import write_all, write_config
from tests.recipe.tiny_subject import write_subject_config

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


def in_two_processes(config, module="training.finetune"):
    """What `accelerate launch` said."""
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
            module,
            str(config),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    return launched.stdout


def history(folder):
    rows = (folder / "history.csv").read_text().splitlines()[1:]
    return torch.tensor([[float(cell) for cell in row.split(",")] for row in rows])


def assert_alike(one, two, files=("hugging.safetensors",)):
    torch.testing.assert_close(history(one), history(two), atol=1e-5, rtol=1e-4)
    for file in files:
        with safe_open(one / file, "pt") as a, safe_open(two / file, "pt") as b:
            assert list(a.keys()) == list(b.keys())
            for key in a.keys():
                torch.testing.assert_close(a.get_tensor(key), b.get_tensor(key), atol=1e-4, rtol=1e-3)


def test_two_processes_are_one_with_the_same_global_batch(world):
    one, two = (config_of(world, folder, 6, 3) for folder in ("one", "two"))
    assert finetune.main([str(one)]) == 0
    said = in_two_processes(two)
    assert "2 processes x 1 micro-batches x 2" in said and said.count("read back: 32 of 32 pairs") == 1
    assert_alike(world / "one", world / "two")


def test_two_processes_are_one_on_a_flux_with_streamed_blocks_and_trained_tables(world, tmp_path):
    """Some pictures have no references: a process may see none of the tables that it trains."""
    base, tables = write_flux(tmp_path / "flux1"), write_tables(tmp_path / "embedding.safetensors")
    one, two = (
        write_flux_config(
            tmp_path / f"{name}.toml",
            base,
            world / "data",
            tmp_path / name,
            models=f'embeddings = "{tables.as_posix()}"',
            references="drop = 0.6",
            lora='sites = "DS"\ntables = true',
            loss="routing_weight = 1.0",
            train="gradient_checkpointing = true",
            memory="stream_blocks = 2",
        )
        for name in ("one", "two")
    )
    assert finetune.main([str(one)]) == 0
    said = in_two_processes(two)
    assert "2 processes x 1 micro-batches x 1" in said and said.count("read back: 28 of 28 pairs") == 1
    assert bool((history(tmp_path / "one")[:, 4] == 0).any())  # no picture of a step with references
    assert_alike(tmp_path / "one", tmp_path / "two", ("hugging.safetensors", "hugging_embedding.safetensors"))


def test_two_processes_are_one_on_a_subject_adapter(world):
    """The last layers of its text encoders have no gradient, for which several processes would wait."""
    one, two = (
        write_subject_config(
            world / f"{name}.toml",
            world,
            out=name,
            drop="text = 0.5",
            adapter='text_encoder = "layers"',
            train="micro_batch = 1\ngradient_checkpointing = true",
            output='precision = "float32"',
        )
        for name in ("subject_one", "subject_two")
    )
    for path in (one, two):
        path.write_text(path.read_text().replace("every = 2\ncount", "every = 0\ncount"))
    assert subject.main([str(one)]) == 0
    said = in_two_processes(two, "training.subject")
    assert "2 processes x 2 micro-batches x 1" in said and said.count("read back: ") == 1
    assert_alike(world / "subject_one", world / "subject_two", ("pair.safetensors",))
