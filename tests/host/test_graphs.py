"""Whole graphs on a running server: every shipped one to a saved picture, the cache, cancelling, and warnings."""

import io

import pytest
import torch
from PIL import Image

from tests.host.api_graphs import for_test, lacking, node, saving, shipped, two_subjects, without
from tests.host.conftest import ROOT
from tests.host.pictures import photograph, png


def change(graph, node_id, **inputs):
    """A graph with some inputs of one node changed."""
    return {**graph, node_id: {**graph[node_id], "inputs": {**graph[node_id]["inputs"], **inputs}}}


def digest(run):
    assert run.status == "success", run.error
    assert run.outputs["digest"]["finite"] == [True]
    return run.outputs["digest"]["digest"][0]


def test_every_workflow_has_its_api_twin():
    assert {path.stem for path in shipped()} | {"index"} == {path.stem for path in (ROOT / "workflows").glob("*.json")}


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_a_shipped_graph_runs_to_a_saved_picture(comfy_server, path):
    graph = for_test(path)
    if missing := lacking(graph, comfy_server.object_info()):
        assert not any(name.startswith("Relate") and "." not in name for name in missing)
        pytest.skip(f"this ComfyUI has no {', '.join(missing)}")
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    if not saving(graph):
        assert {"SaveWEBM", "RelateSaveTriplet"} & {graph[node_id]["class_type"] for node_id in run.outputs}
        return
    pictures = comfy_server.images(run, saving(graph))
    assert pictures and Image.open(io.BytesIO(pictures[-1])).size[0] > 0


def test_the_same_graph_twice_runs_nothing_the_second_time(comfy_server, graph):
    first = comfy_server.run(graph)
    assert first.status == "success", first.error
    assert comfy_server.run(graph).executed == frozenset()


def test_another_seed_samples_again_and_encodes_nothing(comfy_server, graph):
    comfy_server.run(graph)
    run = comfy_server.run(change(graph, "sample", seed=99))
    assert run.executed == {"sample", "digest", "decode", "save"}


def test_another_prompt_or_weight_encodes_no_photograph(comfy_server, graph):
    comfy_server.run(graph)
    graph = change(graph, "positive", text="a corgi shaking hands with a fox")
    assert "encode" not in comfy_server.run(graph).executed
    assert "encode" not in comfy_server.run(change(graph, "apply", weight=0.9)).executed


def test_moving_a_box_reads_the_photographs_no_second_time(comfy_server, graph):
    """Only the resampler runs again (that the features are kept is shown in test_encoding.py)."""
    comfy_server.run(graph)
    run = comfy_server.run(change(graph, "fox", x0=0.4))
    assert {"fox", "encode", "apply", "sample"} <= run.executed
    assert not {"photo", "corgi", "vision", "identity_model"} & run.executed


def test_weight_0_is_the_picture_without_our_nodes_bit_for_bit(comfy_server, graph):
    graph = change(change(graph, "apply", weight=0.0), "relation", strength=0.0)
    bare = without(graph, "corgi", "fox", "identity_model", "encode", "relation", "apply", "vision", "photo")
    bare = change(bare, "sample", model=["base", 0])
    assert digest(comfy_server.run(graph)) == digest(comfy_server.run(bare))


def test_cancelling_mid_run_leaves_nothing_behind(comfy_server, graph):
    whole = digest(comfy_server.run(graph))
    slow = {**graph, "slow": node("RelateTestSlowModel", model=["apply", 0], seconds=0.5)}
    slow = change(change(slow, "sample", steps=60), "sample", model=["slow", 0])
    prompt_id = comfy_server.queue(slow)
    comfy_server.wait_for_step(prompt_id, 60)
    comfy_server.interrupt()
    assert comfy_server.wait(prompt_id, slow).status == "interrupted"
    comfy_server.free()
    again = {**graph, "again": node("PreviewImage", images=["decode", 0])}
    assert digest(comfy_server.run(again)) == whole


def test_cancelling_while_photographs_are_encoded(comfy_server, graph):
    """Forty photographs of half a second each: stopped between two of them, not after the last."""
    graph["many"] = node("RepeatImageBatch", image=["photo", 0], amount=40)
    graph["local"] = node("RelateTestClipVision", weights_seed=8, seconds=0.5)
    graph = change(change(graph, "corgi", image=["many", 0]), "encode", local_clip_vision=["local", 0])
    prompt_id = comfy_server.queue(graph)
    comfy_server.wait_for_log(prompt_id, "a picture is encoded")
    comfy_server.interrupt()
    run = comfy_server.wait(prompt_id, graph)
    assert run.status == "interrupted" and run.error.startswith("RelateEncodeIdentity") and run.seconds < 12


@pytest.mark.parametrize("layout", ["attention", "none"])
def test_the_other_layouts_give_another_picture(comfy_server, graph, layout):
    graph = change(graph, "sample", steps=6)  # the automatic layout starts after four steps
    boxes = digest(comfy_server.run(graph))
    assert digest(comfy_server.run(change(graph, "apply", layout=layout))) != boxes


def test_a_name_that_the_prompt_lacks_is_a_warning_with_the_name(comfy_server):
    run = comfy_server.run(two_subjects(prompt="a corgi beside a plushie bear"))
    assert run.status == "success", run.error
    warnings = [line for line in comfy_server.log.splitlines() if "is not in the prompt" in line]
    assert any("'fox'" in line for line in warnings) and not any("'corgi'" in line for line in warnings[-1:])


@pytest.mark.parametrize(
    "text",
    ["a corgi hugging a fox, " + "very detailed, " * 100, "", "(a corgi:1.4) hugging a [fox]"],
    ids=["300 tokens", "empty", "weighted"],
)
def test_any_prompt(comfy_server, graph, text):
    for layout in ("boxes", "attention"):
        changed = change(change(graph, "positive", text=text), "apply", layout=layout)
        digest(comfy_server.run(change(changed, "sample", steps=6)))


@pytest.mark.parametrize("size", [(200, 136), (1000, 72), (264, 512)], ids=str)
def test_sizes_that_are_no_multiple_of_64(comfy_server, graph, size):
    run = comfy_server.run(change(graph, "latent", width=size[0], height=size[1], batch_size=2))
    digest(run)
    assert Image.open(io.BytesIO(comfy_server.images(run)[0])).size == size


def test_a_shared_identity_in_one_graph_feeds_two_samplers(comfy_server, graph):
    """Two Apply Identity nodes on one identity, sampled in one run, equal the two sampled alone."""
    weak = change(graph, "apply", weight=0.2)
    alone = [digest(comfy_server.run(one)) for one in (graph, weak)]
    both = {
        **graph,
        "apply 2": weak["apply"],
        "sample 2": {**graph["sample"], "inputs": {**graph["sample"]["inputs"], "model": ["apply 2", 0]}},
        "digest 2": node("RelateTestDigest", samples=["sample 2", 0]),
    }
    comfy_server.free()
    run = comfy_server.run(both)
    assert [digest(run), run.outputs["digest 2"]["digest"][0]] == alone


def test_eight_subjects(comfy_server, graph):
    for index in range(6):
        left = index / 6
        graph[f"more {index}"] = node(
            "RelateSubject", image=["photo", 0], name=f"duck {index}", x0=left, y0=0.5, x1=min(left + 0.2, 1.0), y1=1.0,
            weight=0.5, scene=[f"more {index - 1}" if index else "fox", 0],
        )  # fmt: skip
    digest(comfy_server.run(change(graph, "encode", scene=["more 5", 0])))


def test_photographs_of_any_kind(comfy_server, graph):
    """Transparent, tall, one pixel: all from files, as users give them."""
    for height, width, channels in ((40, 30, 4), (300, 4, 3), (1, 1, 3)):
        picture = photograph(height, width, channels=channels)
        name = comfy_server.upload(f"odd_{height}.png", png(picture))
        assert torch.isfinite(picture).all()
        digest(comfy_server.run(change(graph, "photo", image=name)))
