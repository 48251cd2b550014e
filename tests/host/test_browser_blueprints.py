"""The pack's subgraph blueprints: served, opened on the page, and flattened into the nodes they promise."""

from __future__ import annotations

import json
import urllib.error

import pytest

from tests.host.conftest import ROOT
from tests.host.page import open_page, open_workflow
from tests.host.test_browser import SHOTS, errors_of_ours

BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
KINDS = {
    "Two subjects and a relation": ["RelateSubject", "RelateSubject", "RelateLayout", "RelateScenePrompt",
                                    "RelateRelationLoader", "CLIPTextEncode", "RelateEncodeIdentity",
                                    "RelateApplyIdentity"],
    "References in place": ["RelateSubject", "RelateSubject", "RelateLayout", "RelateScenePrompt", "RelateApplyScene"],
}  # fmt: skip


@pytest.fixture(scope="module")
def page(comfy_server):
    try:
        served = comfy_server.get("/global_subgraphs")
    except urllib.error.HTTPError:
        pytest.skip("this ComfyUI has no subgraph blueprints")
    with open_page(comfy_server.url) as page:
        page.served = {entry["name"] for entry in served.values() if entry["source"] == "custom_node"}
        yield page


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_served_and_flattens_into_its_nodes(page, path):
    assert path.stem in page.served
    open_workflow(page, json.loads(path.read_text(encoding="utf-8")))
    page.screenshot(path=SHOTS / f"blueprint_{path.stem.replace(' ', '_')}.png")
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    assert sorted(node["class_type"] for node in queued.values()) == sorted(KINDS[path.stem])
    names = [node["inputs"]["name"] for node in queued.values() if node["class_type"] == "RelateSubject"]
    assert sorted(names) == ["cat", "plushie bear"]
    page.evaluate("""() => {
      const node = window.app.graph._nodes[0];
      node.widgets.find(w => w.name === "name_1").value = "fox";
    }""")
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    names = [node["inputs"]["name"] for node in queued.values() if node["class_type"] == "RelateSubject"]
    assert sorted(names) == ["fox", "plushie bear"]
    page.evaluate("() => window.app.canvas.openSubgraph(window.app.graph._nodes[0].subgraph)")
    page.wait_for_timeout(800)
    page.evaluate("window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(800)
    page.screenshot(path=SHOTS / f"blueprint_{path.stem.replace(' ', '_')}_inside.png")
    assert errors_of_ours(page) == []
