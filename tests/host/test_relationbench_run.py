"""relationbench run through a real ComfyUI: killed in the middle and gone on with; two shards are one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.host.conftest import ROOT

SCENES, STEPS = 2, 4


def evaluate(*arguments) -> list[str]:
    return [sys.executable, "-m", "training.evaluate", *map(str, arguments)]


def run(*arguments) -> str:
    done = subprocess.run(evaluate(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two scenes of hugging creatures: prompts, boxes, references, true renders."""
    folder = tmp_path_factory.mktemp("scenes")
    run("miniworld", "--relation", "hugging", "--scenes", SCENES, "--out", folder)
    return folder


def drawing(scenes, server, out, *more) -> tuple:
    return (
        "relationbench",
        "run",
        "--prompts",
        scenes / "prompts.jsonl",
        "--out",
        out,
        "--world",
        "miniworld",
        "--comfyui",
        server.url,
        "--set",
        f"steps={STEPS}",
        "--draw-only",
        *more,
    )


def pictures(out) -> dict[str, bytes]:
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted((out / "pictures").rglob("*.png"))
        if not path.name.startswith(".")
    }  # a picture in work has a temporary name


def executed(server) -> int:
    """How many graphs of ours the server has run to their end."""
    ours = [
        entry
        for entry in server.get("/history").values()
        if any(node["class_type"] == "RelateApplyIdentity" for node in entry["prompt"][2].values())
    ]
    return len([entry for entry in ours if entry["status"]["status_str"] == "success"])


@pytest.fixture(scope="module")
def whole(scenes, comfy_server, tmp_path_factory):
    """A run that was killed without warning after its first picture, and called again."""
    out, before = tmp_path_factory.mktemp("whole") / "out", executed(comfy_server)
    process = subprocess.Popen(
        evaluate(*drawing(scenes, comfy_server, out)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not pictures(out) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    survived = pictures(out)
    assert 1 <= len(survived) < 2 * SCENES, "it was to be killed in the middle"
    text = run(*drawing(scenes, comfy_server, out))
    return out, survived, text, executed(comfy_server) - before


def test_a_killed_run_goes_on_and_draws_no_picture_twice(whole):
    out, survived, text, graphs = whole
    assert len(pictures(out)) == 2 * SCENES and survived.items() <= pictures(out).items()
    assert f"{len(survived)} there already" in text
    assert graphs == 2 * SCENES


def test_two_shards_are_the_same_run(whole, scenes, comfy_server, tmp_path):
    for shard in ("1/2", "0/2"):
        run(*drawing(scenes, comfy_server, tmp_path / "out", "--shard", shard))
    assert pictures(tmp_path / "out") == pictures(whole[0])
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (whole[0] / "manifest.json").read_bytes()


def test_the_pictures_are_measured_with_every_measure(whole, scenes, comfy_server):
    out = whole[0]
    arguments = [part for part in drawing(scenes, comfy_server, out) if part != "--draw-only"]
    text = run(*arguments, "--clip", "miniworld", "--detector", "miniworld", "--judge", "miniworld", "--device", "cpu")
    assert "| relate | overall |" in text and "ms-diffusion against relate" in text
    facts = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    groups = facts["methods"]["relate"]["groups"]["overall"]
    assert {"CLIP-R", "found", "swap", "count_exact", "happened"} <= set(groups)
    assert (out / "table.md").exists() and (out / "sheet.png").exists()
