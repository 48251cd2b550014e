"""ComfyUI's page in a headless Chromium: every shipped workflow opens with all its nodes and no error of ours.

Screenshots are kept in out/browser/, to be looked at.
"""

import json

import pytest

from tests.host.conftest import PACK_FOLDER, ROOT
from tests.host.page import open_page, use_renderer

WORKFLOWS = sorted(path for path in (ROOT / "workflows").glob("*.json") if path.stem != "index")
SHOTS = ROOT / "out" / "browser"
# Opens a workflow as a dropped file does, and tells which node types the page knows (newer pages mark a node of a
# known type too, when its file is missing).
OPEN = """async (workflow) => {
  await window.app.loadGraphData(workflow, true, true);
  return window.app.graph._nodes.map(n => [n.type, n.type in LiteGraph.registered_node_types]);
}"""


@pytest.fixture(scope="module")
def page(comfy_server):
    """ComfyUI's page in the classic renderer, wide enough for whole graphs."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    use_renderer(comfy_server.url, nodes2=False)
    with open_page(comfy_server.url, {"width": 2560, "height": 1400}) as page:
        yield page


def errors_of_ours(page):
    """Errors whose text or place names our pack; calls to outside hosts fail on a closed network and are none."""
    return [said for said in page.said if said[0] == "error" and (PACK_FOLDER in str(said) or "Relate" in str(said))]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_opens_with_every_node(page, comfy_server, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    skip_if_newer(path, comfy_server)
    nodes = page.evaluate(OPEN, workflow)
    page.wait_for_timeout(1000)
    complaints = complaints_of(page)
    page.keyboard.press("Escape")
    page.evaluate("window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1500)
    page.screenshot(path=SHOTS / f"{path.stem}.png")
    assert len(nodes) == len(workflow["nodes"]) > 0
    assert [kind for kind, known in nodes if not known] == []
    assert "missing node" not in complaints.lower()
    missing = lacking(workflow, comfy_server.base / "models")
    assert {name for name, folder in named_files(workflow) if offers(complaints, name, folder)} == missing
    assert bool(missing) != path.stem.startswith("miniworld_")  # these need nothing but the pack
    assert errors_of_ours(page) == []


def twin_of(path):
    """The graph that the page shall queue for a workflow."""
    return json.loads((ROOT / "tests" / "host" / "graphs" / path.name).read_text(encoding="utf-8"))


def skip_if_newer(path, comfy_server):
    """Leave out a graph of nodes that this ComfyUI does not have yet; ours must all be there."""
    info = comfy_server.object_info()
    missing = sorted({node["class_type"] for node in twin_of(path).values()} - info.keys())
    assert not [kind for kind in missing if kind.startswith("Relate")]
    if missing:
        pytest.skip(f"this ComfyUI has no {', '.join(missing)}")


def complaints_of(page):
    """What the page has to say of a workflow it just opened: its dialogs, or its panel of errors (frontend 1.49)."""
    overlay = page.get_by_test_id("error-overlay-see-errors")
    if overlay.count():
        overlay.click()
        page.wait_for_timeout(500)
    places = page.locator("[role=dialog], [data-testid^=error-group]")
    complaints = "\n".join(places.all_inner_texts())
    if overlay.count() or page.get_by_test_id("panel-tab-errors").count():  # the server would keep it open for others
        page.evaluate("window.app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")
        page.wait_for_timeout(500)
    return complaints


def named_files(workflow):
    """(name, folder) of every file that the workflow says where to get."""
    named = [model for node in workflow["nodes"] for model in node.get("properties", {}).get("models", [])]
    return {(model["name"], model["directory"]) for model in named}


def lacking(workflow, models):
    """Names of the files among them that do not lie in ComfyUI's `models` folder yet."""
    return {name for name, folder in named_files(workflow) if not (models / folder / name).exists()}


def offers(complaints, name, folder):
    """Whether the page names a missing file and its folder: `folder / name` on a line, or on two lines (1.49)."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    return f"{folder} / {name}" in lines or (name, folder) in zip(lines, lines[1:])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_page_makes_the_api_twin_of_a_workflow(page, comfy_server, path):
    """What the page would queue is the graph that the tests run, node by node and value by value.

    Inputs that a node of ComfyUI got in a later version are not there in an older one.
    """
    skip_if_newer(path, comfy_server)
    info = comfy_server.object_info()
    page.evaluate(OPEN, json.loads(path.read_text(encoding="utf-8")))
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    twin = twin_of(path)
    for node in twin.values():
        known = {name for part in info[node["class_type"]]["input"].values() for name in part}
        if not node["class_type"].startswith("Relate"):
            node["inputs"] = {name: value for name, value in node["inputs"].items() if name in known}
    for node in queued.values():
        if node["class_type"] == "PreviewAny":
            node["inputs"].pop("preview", None)  # a widget in which the page shows what came out
    assert {key: (node["class_type"], node["inputs"]) for key, node in queued.items()} == {
        key: (node["class_type"], node["inputs"]) for key, node in twin.items()
    }
