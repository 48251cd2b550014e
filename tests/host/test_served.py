"""What a running ComfyUI shows of the pack: loaded without a warning, schemas with words, help pages, templates."""

import json
import re

import pytest

from tests.bench.startup import start
from tests.host.comfyui import find_comfyui
from tests.host.conftest import PACK_FOLDER, ROOT

NODES = {
    "RelateIdentityModelLoader": (["model_name"], ["RELATE_IDENTITY_MODEL"]),
    "RelateSubject": (["image", "name", "x0", "y0", "x1", "y1", "weight", "mask?", "scene?"], ["RELATE_SCENE"]),
    "RelateLayout": (["scene", "bboxes", "width", "height"], ["RELATE_SCENE", "IMAGE"]),
    "RelateEncodeIdentity": (
        ["scene", "identity_model", "clip", "clip_vision", "local_grid", "ground_with", "local_clip_vision?"],
        ["RELATE_IDENTITY"],
    ),
    "RelateApplyIdentity": (["model", "identity", "weight", "start_at", "end_at", "layout"], ["MODEL"]),
    "RelateRelationLoader": (["model", "lora_name", "strength"], ["MODEL", "STRING"]),
    "RelateLayoutPreview": (["scene", "width", "height"], ["IMAGE"]),
    "RelateMiniworldLoader": ([], ["MODEL", "CLIP", "VAE", "CLIP_VISION", "CLIP_VISION", "RELATE_IDENTITY_MODEL"]),
    "RelateMiniworldFluxLoader": (["variant?"], ["MODEL", "CLIP", "VAE"]),
    "RelateMiniworldCreature": (["creature"], ["IMAGE", "STRING"]),
    "RelateFeaturePreview": (["scene", "local_clip_vision"], ["IMAGE"]),
    "RelateSaveTriplet": (
        ["target", "scene", "prompt", "relation", "folder", "masks?", "keypoints?"],
        ["STRING"],
    ),
    "RelateScorePictures": (["images", "scene", "prompt", "clip", "clip_vision"], ["IMAGE", "IMAGE", "STRING"]),
}
DEFAULTS = {
    "RelateSubject": {"x0": 0.0, "y0": 0.0, "x1": 1.0, "y1": 1.0, "weight": 1.0},
    "RelateEncodeIdentity": {"local_grid": 4, "ground_with": "name and box"},
    "RelateApplyIdentity": {"weight": 0.6, "start_at": 0.0, "end_at": 1.0, "layout": "boxes"},
    "RelateRelationLoader": {"strength": 1.0},
}


@pytest.fixture(scope="module")
def served(comfy_server):
    return {name: info for name, info in comfy_server.object_info().items() if name.startswith("Relate")}


def inputs_of(info):
    """(name, kind, options) of every input, required ones first."""
    return [(name, *spec) for group in ("required", "optional") for name, spec in info["input"].get(group, {}).items()]


def test_the_pack_loads_without_a_warning(comfy_server, pack):
    assert pack.log == ""
    of_ours = [line for line in comfy_server.start_log.splitlines() if PACK_FOLDER in line or "Relate:" in line]
    assert of_ours and not [line for line in of_ours if re.search("FAILED|Error|Cannot|missing|warn", line, re.I)]


def test_the_start_up_benchmark_starts_every_node():
    """Its seconds are for a quiet machine; what the start may import, test_loading.py says."""
    seconds, worked, count = start(find_comfyui())
    assert count >= len(NODES) and seconds > 0 and worked > 0


@pytest.mark.parametrize("node_id", NODES)
def test_a_node_has_the_sockets_of_the_contract(served, node_id):
    names, outputs = NODES[node_id]
    optional = served[node_id]["input"].get("optional", {})
    shown = {name + ("?" if name in optional else "") for name, *_ in inputs_of(served[node_id])}
    assert shown == set(names)
    assert served[node_id]["output"] == outputs


@pytest.mark.parametrize("node_id", DEFAULTS)
def test_a_fresh_node_holds_the_defaults_of_the_contract(served, node_id):
    given = {
        name: options.get("default", (options.get("options") or kind)[0]) if name in DEFAULTS[node_id] else None
        for name, kind, options in inputs_of(served[node_id])
    }
    assert {name: given[name] for name in DEFAULTS[node_id]} == DEFAULTS[node_id]


def test_every_node_explains_itself(served):
    """Display name, category, description, and a tooltip on every input and output."""
    assert set(NODES) <= set(served)
    lacking = []
    for node_id, info in served.items():
        if info["python_module"] != f"custom_nodes.{PACK_FOLDER}":
            continue
        if not info["category"].startswith("relate/") or info["display_name"] in (None, node_id):
            lacking.append(f"{node_id}: name or category")
        if len(info["description"]) < 20:
            lacking.append(f"{node_id}: description")
        lacking += [f"{node_id}.{name}: tooltip" for name, _, options in inputs_of(info) if not options.get("tooltip")]
        lacking += [f"{node_id} output {i}" for i, tooltip in enumerate(info["output_tooltips"]) if not tooltip]
    assert lacking == []


@pytest.mark.parametrize("node_id", NODES)
def test_a_node_has_its_help_page(comfy_server, node_id):
    page = comfy_server.get_bytes(f"/extensions/{PACK_FOLDER}/docs/{node_id}.md").decode()
    assert len(page) > 200 and page.startswith("#")


def test_templates_are_listed_and_served_with_their_thumbnails(comfy_server):
    listed = comfy_server.get("/api/workflow_templates")[PACK_FOLDER]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json")) != []
    for name in listed:
        address = f"/api/workflow_templates/{PACK_FOLDER}/{name}"
        assert json.loads(comfy_server.get_bytes(f"{address}.json"))["nodes"]
        assert comfy_server.get_bytes(f"{address}.jpg")[:2] == b"\xff\xd8"
