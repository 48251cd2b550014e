"""The miniworld's graphs on a running server with the models that the pack ships; no test depends on what they draw."""

from __future__ import annotations

import io
import json

import pytest
import torch
from PIL import Image

from tests.host import run_examples
from tests.host.api_graphs import GRAPHS, node, saving, shipped_miniworld
from tests.host.conftest import MINIWORLD_RELATION, ROOT

PAIR, ROUTED = GRAPHS / "miniworld_two_subjects_relation.json", GRAPHS / "miniworld_dreamo_routing.json"


def quick(path=PAIR, **changes) -> dict:
    """A graph in four steps, with inputs changed: `RelateRelationLoader={"strength": 0.0}`, at its first such node."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    for value in graph.values():
        if value["class_type"] in ("KSampler", "RelateRoutingSampler", "BasicScheduler"):
            value["inputs"]["steps"] = 4
    for kind, inputs in changes.items():
        next(value for value in graph.values() if value["class_type"] == kind)["inputs"] |= inputs
    return graph


def choices(server, node_id: str, name: str) -> list[str]:
    """What a combo offers, as old and new schemas say it."""
    kind, options = server.object_info()[node_id]["input"]["required"][name]
    return options["options"] if kind == "COMBO" else kind


@pytest.fixture
def draw(comfy_server):
    """A graph's saved picture."""

    def run(graph: dict) -> Image.Image:
        run = comfy_server.run(graph)
        assert run.status == "success", run.error
        (picture,) = comfy_server.images(run, saving(graph))
        return Image.open(io.BytesIO(picture))

    return run


@pytest.mark.parametrize("path", shipped_miniworld(), ids=lambda path: path.stem)
def test_the_picture_is_128_enlarged_four_times_and_names_are_found_in_the_prompt(comfy_server, draw, path):
    said = len(comfy_server.log)
    assert draw(quick(path)).size == (512, 512)
    assert "is not in the prompt" not in comfy_server.log[said:]


def test_a_layout_of_the_attention_reads_what_scene_prompt_wrote_also_out_of_the_cache(comfy_server, draw):
    said = len(comfy_server.log)
    for seed in (31, 32):
        sampling = {"seed": seed, "steps": 8}
        boxes, attention = (
            draw(quick(RelateApplyIdentity={"layout": layout}, KSampler=sampling)) for layout in ("boxes", "attention")
        )
        assert boxes.tobytes() != attention.tobytes()
    assert "layout 'attention'" not in comfy_server.log[said:]


def test_the_picture_follows_the_seed(draw):
    first, second, again = (draw(quick(KSampler={"seed": seed})) for seed in (1, 2, 1))
    assert first.tobytes() == again.tobytes() != second.tobytes()


def test_the_relation_changes_the_picture(draw):
    assert draw(quick()).tobytes() != draw(quick(RelateRelationLoader={"strength": 0.0})).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"RelateRoutingSampler": {"routing_strength": 0.0}},
        {"RelateMiniworldCreature": {"creature": "dog-teal-scarf"}},
    ],
    ids=["steering", "reference"],
)
def test_steering_and_references_change_the_picture_of_the_small_flux(draw, change):
    assert draw(quick(ROUTED)).tobytes() != draw(quick(ROUTED, **change)).tobytes()


def test_another_creature_of_the_same_name_changes_the_picture(draw):
    assert draw(quick()).tobytes() != draw(quick(RelateMiniworldCreature={"creature": "fox-purple-cape"})).tobytes()


def test_a_creature_brings_its_name(comfy_server):
    graph = {
        "it": node("RelateMiniworldCreature", creature="mouse-magenta-flower"),
        "told": node("PreviewAny", source=["it", 1]),
    }
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    assert run.outputs["told"]["text"] == ["mouse"]
    assert run.outputs["it"]["images"]  # shown on the node


def test_a_creature_is_a_picture_in_the_range_of_pictures(pack):
    picture, name = pack.run("RelateMiniworldCreature", creature="fox-red-cape")
    assert picture.shape == (1, 256, 256, 3) and picture.dtype == torch.float32 and name == "fox"
    assert 0 <= picture.min() < 0.2 and 0.8 < picture.max() <= 1


def test_every_creature_of_the_pack_is_offered_and_no_other(comfy_server):
    offered = choices(comfy_server, "RelateMiniworldCreature", "creature")
    shipped = sorted(path.stem for path in (ROOT / "models" / "miniworld" / "creatures").glob("*.png"))
    assert offered == shipped != []
    run = comfy_server.run({"it": node("RelateMiniworldCreature", creature="../samples")})
    assert "fox-red-cape" in run.error and "'../samples'" in run.error


@pytest.mark.parametrize("loader", ["RelateRelationLoader", "LoraLoader"])
def test_the_relation_is_offered_without_copying(comfy_server, loader):
    assert MINIWORLD_RELATION.name in choices(comfy_server, loader, "lora_name")


def test_the_examples_say_what_failed(comfy_server, capsys, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(quick(RelateRelationLoader={"lora_name": "absent.safetensors"})), encoding="utf-8")
    assert run_examples.run_one(comfy_server, path) is None
    said = capsys.readouterr().out
    assert "broken" in said and "absent.safetensors" in said


def test_the_examples_say_why_there_is_no_comfyui(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run_examples, "why_not", lambda: {"host": "no ComfyUI here: set COMFYUI_PATH"})
    monkeypatch.setattr("sys.argv", ["run_examples", "--out", str(tmp_path / "out")])
    assert run_examples.main() == 1
    assert "set COMFYUI_PATH" in capsys.readouterr().err and not (tmp_path / "out").exists()
