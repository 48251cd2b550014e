"""What comes one after another on a server: two queued prompts, a cancel between them, a restart, many changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.server_memory import graph_of, grown
from tests.host.api_graphs import node, two_subjects
from tests.host.comfyui import find_comfyui
from tests.host.conftest import PACK_FOLDER, ROOT, TEST_PACK
from tests.host.server import ComfyServer, device_flags

STEPS = 61  # of the slow graph


def digest(run) -> str:
    assert run.status == "success", run.error
    return run.outputs["digest"]["digest"][0]


def slow(seed: int) -> dict:
    """The two-subject graph of this seed, half a minute long."""
    graph = two_subjects(seed=seed)
    graph["slow"] = node("RelateTestSlowModel", model=["apply", 0], seconds=0.5)
    graph["sample"]["inputs"] |= {"model": ["slow", 0], "steps": STEPS}
    return graph


def test_a_cancel_ends_one_of_two_queued_prompts_and_the_other_is_drawn_as_if_alone(comfy_server):
    second = two_subjects(seed=72)
    alone = digest(comfy_server.run(second))
    comfy_server.free()
    first = slow(71)
    ids = [
        comfy_server.queue(graph) for graph in (first, {**second, "again": node("PreviewImage", images=["decode", 0])})
    ]
    comfy_server.wait_for_step(ids[0], STEPS)
    comfy_server.interrupt()
    assert comfy_server.wait(ids[0], first).status == "interrupted"
    assert digest(comfy_server.wait(ids[1], second)) == alone


def test_a_restarted_server_draws_the_same(comfy_server, base_directory: Path, tmp_path):
    before = digest(comfy_server.run(two_subjects(seed=73)))
    for folder in ("models", "input"):
        (tmp_path / folder).symlink_to(base_directory / folder, target_is_directory=True)
    packs = {PACK_FOLDER: ROOT, "relate-test-pack": TEST_PACK}
    with ComfyServer(find_comfyui(), tmp_path, packs, device_flags()) as restarted:
        assert digest(restarted.run(two_subjects(seed=73))) == before


def test_the_prompts_of_the_memory_benchmark_run(comfy_server):
    """The measurement itself takes a hundred of them: python -m tests.bench.server_memory."""
    digests = {digest(comfy_server.run(graph_of(number, "subject.png"))) for number in (1, 2)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("sizes", "growth"),
    [([*range(10), *[1000.0] * 90], 0.0), ([1000.0 + n for n in range(100)], 0.08)],
    ids=["flat", "grows"],
)
def test_growth_is_counted_from_the_tenth_prompt_on(sizes, growth):
    assert grown(sizes) == pytest.approx(growth, abs=0.005)
