"""The Layout node's box editor on the page, in both renderers: what is drawn becomes the text that is queued."""

from __future__ import annotations

import json

import pytest

from tests.host.page import open_page, use_renderer
from tests.host.test_browser import SHOTS, errors_of_ours

NODES2 = "() => document.querySelector('[data-node-id] canvas.relate-boxes') !== null"
# Subjects "cat" and "bear", each with its photograph, chained into a Layout node, alone on the canvas.
BUILD = """() => {
  const graph = window.app.graph;
  graph.clear();
  const add = (type, x, y) => { const n = LiteGraph.createNode(type); graph.add(n); n.pos = [x, y]; return n; };
  const link = (from, to, name) => from.connect(0, to, to.inputs.findIndex(i => i.name === name));
  const photo = add("LoadImage", 20, 60), cat = add("RelateSubject", 340, 60), bear = add("RelateSubject", 340, 420);
  const layout = add("RelateLayout", 660, 60);
  layout.setSize([380, 560]);
  layout.widgets.find(w => w.name === "bboxes").value = JSON.stringify([0, 512].map(x => (
    {x, y: 0, width: 512, height: 1024})));  // the page remembers the value of a node of the same id
  for (const side of ["width", "height"]) layout.widgets.find(w => w.name === side).value = 1024;
  photo.widgets.find(w => w.name === "image").value = "subject.png";
  cat.widgets.find(w => w.name === "name").value = "cat";
  bear.widgets.find(w => w.name === "name").value = "bear";
  link(photo, cat, "image"); link(photo, bear, "image"); link(cat, bear, "scene"); link(bear, layout, "scene");
  window.app.canvas.ds.scale = 1; window.app.canvas.ds.offset = [60, 60];
  graph.setDirtyCanvas(true, true);
}"""
LAYOUT = "window.app.graph._nodes.find(n => n.type === 'RelateLayout')"
TEXT = f"{LAYOUT}.widgets.find(w => w.name === 'bboxes')"
SUBJECTS = f"async () => (await (await import(window.relateScene)).subjectsOf({LAYOUT}))"


@pytest.fixture(scope="module", params=["classic", "nodes2"])
def page(comfy_server, request):
    SHOTS.mkdir(parents=True, exist_ok=True)
    use_renderer(comfy_server.url, nodes2=request.param == "nodes2")
    with open_page(comfy_server.url, {"width": 1440, "height": 1000}) as page:
        page.evaluate(BUILD)
        page.wait_for_timeout(1000)
        if request.param == "nodes2" and not page.evaluate(NODES2):
            pytest.skip("this ComfyUI's page has no finished Nodes 2.0")
        address = next(name for name in comfy_server.get("/extensions") if name.endswith("relate_scene.js"))
        page.evaluate("address => { window.relateScene = address }", address)
        page.renderer = request.param
        yield page
    use_renderer(comfy_server.url, nodes2=False)


@pytest.fixture
def editor(page):
    """The editor's canvas: [left, top, pixels of the page for one pixel of the picture]."""
    page.evaluate(BUILD)
    page.wait_for_timeout(1000)
    return frame(page)


def frame(page):
    bounds = page.locator("canvas.relate-boxes").bounding_box()
    width, height = page.evaluate(f"() => ['width', 'height'].map(k => {LAYOUT}.widgets.find(w => w.name === k).value)")
    scale = min((bounds["width"] - 20) / width, (bounds["height"] - 20) / height)  # a margin of 10 on each side
    left = bounds["x"] + (bounds["width"] - width * scale) / 2
    return left, bounds["y"] + (bounds["height"] - height * scale) / 2, scale


def drag(page, editor, start, end):
    left, top, scale = editor
    page.mouse.move(left + start[0] * scale, top + start[1] * scale)
    page.mouse.down()
    page.mouse.move(left + (start[0] + end[0]) / 2 * scale, top + (start[1] + end[1]) / 2 * scale)
    page.mouse.move(left + end[0] * scale, top + end[1] * scale)
    page.mouse.up()
    page.wait_for_timeout(100)


def boxes(page):
    return json.loads(page.evaluate(f"() => {TEXT}.value"))


def about(x, y, width, height, editor):
    slack = 8 + 2 / editor[2]
    near = {"x": x, "y": y, "width": width, "height": height}
    return {key: pytest.approx(value, abs=slack) for key, value in near.items()}


def test_boxes_are_moved_sized_at_every_border_added_and_removed(page, editor):
    drag(page, editor, (256, 512), (384, 512))  # the first box, to the right
    assert boxes(page)[0] == about(128, 0, 512, 1024, editor)
    for start, end, expected in [
        ((640, 1024), (512, 800), (128, 0, 384, 800)),  # its lower right corner
        ((128, 0), (64, 100), (64, 100, 448, 700)),  # its upper left corner
        ((64, 450), (160, 450), (160, 100, 352, 700)),  # its left border
        ((300, 100), (300, 40), (160, 40, 352, 760)),  # its upper border
    ]:
        drag(page, editor, start, end)
        assert boxes(page)[0] == about(*expected, editor)
    left, top, scale = editor
    page.mouse.click(left + 800 * scale, top + 300 * scale)  # the second box is selected ...
    page.keyboard.press("Delete")
    page.wait_for_timeout(200)
    assert len(boxes(page)) == 1 and page.evaluate(f"() => Boolean({LAYOUT})")  # ... and it alone is deleted
    drag(page, editor, (960, 900), (640, 200))  # a new one, drawn from its lower right corner
    assert boxes(page)[1] == about(640, 200, 320, 700, editor)
    page.screenshot(path=SHOTS / f"box_editor_{page.renderer}.png")
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    layout = next(node for node in queued.values() if node["class_type"] == "RelateLayout")
    assert json.loads(layout["inputs"]["bboxes"]) == boxes(page)
    assert "relate_boxes" not in layout["inputs"]
    page.mouse.dblclick(left + 800 * scale, top + 500 * scale)
    page.wait_for_timeout(200)
    assert len(boxes(page)) == 1
    assert errors_of_ours(page) == []


def test_presets_give_each_subject_a_box(page, editor):
    for name, (first, second) in {
        "sideBySide": ((0, 102, 512, 881), (512, 102, 512, 881)),
        "overlapping": ((0, 102, 602, 881), (422, 102, 602, 881)),
        "inFront": ((0, 0, 870, 768), (154, 256, 870, 768)),
    }.items():
        page.locator(f"button[data-preset={name}]").click()
        page.wait_for_timeout(300)
        assert boxes(page) == [about(*first, editor), about(*second, editor)]
        page.screenshot(path=SHOTS / f"box_preset_{name}_{page.renderer}.png")


def test_boxes_are_pulled_in_when_the_canvas_shrinks(page, editor):
    page.evaluate(f"() => {{ const w = {LAYOUT}.widgets.find(w => w.name === 'width'); w.value = 600;"
                  " w.callback(600); }")  # fmt: skip
    assert boxes(page) == [about(0, 0, 512, 1024, editor), about(88, 0, 512, 1024, editor)]


def test_a_text_that_is_no_list_is_left_alone(page, editor):
    page.evaluate(f"() => {{ {TEXT}.value = 'half a li' }}")
    drag(page, editor, (256, 512), (384, 512))
    assert page.evaluate(f"() => {TEXT}.value") == "half a li"
    assert errors_of_ours(page) == []


@pytest.mark.parametrize("change, names", [
    ("", ["cat", "bear"]),
    ("bear.mode = 4;", ["cat"]),  # bypassed: the server gets the cat alone
    ("cat.mode = 4;", ["bear"]),
    ("bear.mode = 2;", []),  # muted: the scene ends there
    # through a reroute node
    ("const r = LiteGraph.createNode('Reroute'); g.add(r); bear.connect(0, r, 0);"
     "r.connect(0, layout, layout.inputs.findIndex(i => i.name === 'scene'));", ["cat", "bear"]),
    # a name that another node gives
    ("const s = LiteGraph.createNode('PrimitiveString'); g.add(s); s.widgets[0].value = 'lion';"
     "s.connect(0, cat, cat.inputs.findIndex(i => i.name === 'name'));", ["lion", "bear"]),
    # both subjects in a subgraph
    ("g.convertToSubgraph(new Set([cat, bear]));", ["cat", "bear"]),
], ids=["plain", "second bypassed", "first bypassed", "muted", "reroute", "connected name", "subgraph"])  # fmt: skip
def test_labels_are_the_names_that_the_server_gets(page, editor, change, names):
    page.evaluate(f"""() => {{
      const g = window.app.graph, layout = {LAYOUT};
      const [cat, bear] = g._nodes.filter(n => n.type === "RelateSubject");
      {change}
    }}""")
    page.wait_for_timeout(500)
    assert [subject["name"] for subject in page.evaluate(SUBJECTS)] == names
    assert errors_of_ours(page) == []


def test_photographs_are_those_of_the_subjects(page, editor):
    subjects = page.evaluate(SUBJECTS)
    assert ["filename=subject.png" in subject["photograph"] for subject in subjects] == [True, True]


def test_copy_paste_and_clone_of_a_connected_layout_raise_nothing(page, editor):
    page.evaluate(f"""() => {{
      const nodes = window.app.graph._nodes;
      window.app.canvas.selectItems([{LAYOUT}, nodes.find(n => n.type === "RelateSubject")]);
      window.app.canvas.copyToClipboard();
      window.app.canvas.pasteFromClipboard();
      {LAYOUT}.clone();
    }}""")
    page.wait_for_timeout(500)
    assert page.evaluate("() => window.app.graph._nodes.filter(n => n.type === 'RelateLayout').length") == 2
    assert [said for said in page.said if said[0] == "error" and "NullGraph" in str(said)] == []
    assert errors_of_ours(page) == []


def test_the_editor_is_right_with_the_side_panel_open(page, editor):
    """The panel of a selected node's properties takes room from the canvas; boxes still follow the pointer."""
    page.evaluate(f"() => window.app.canvas.selectItems([{LAYOUT}])")
    toggle = page.locator("[aria-label*='roperties'], [aria-label*='ide panel']").first
    if toggle.count() == 0:
        pytest.skip("this ComfyUI's page has no side panel")
    toggle.click()
    page.wait_for_timeout(1000)
    editor = frame(page)
    drag(page, editor, (256, 512), (384, 512))
    page.screenshot(path=SHOTS / f"box_editor_side_panel_{page.renderer}.png")
    assert boxes(page)[0] == about(128, 0, 512, 1024, editor)
    toggle.click()
    page.wait_for_timeout(500)
