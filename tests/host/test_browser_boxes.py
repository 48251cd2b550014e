"""The box editor of the Layout node in ComfyUI's page: what is drawn becomes the text that is queued."""

from __future__ import annotations

import json

import pytest

from tests.host.test_browser import SHOTS, errors_of_ours, page  # noqa: F401  (the page is a fixture)

# Subjects "cat" and "bear" chained into a Layout node, alone on the canvas.
BUILD = """() => {
  const graph = window.app.graph;
  graph.clear();
  const add = (type, x, y) => { const n = LiteGraph.createNode(type); graph.add(n); n.pos = [x, y]; return n; };
  const cat = add("RelateSubject", 40, 60), bear = add("RelateSubject", 40, 360), layout = add("RelateLayout", 360, 60);
  cat.widgets.find(w => w.name === "name").value = "cat";
  bear.widgets.find(w => w.name === "name").value = "bear";
  cat.connect(0, bear, bear.inputs.findIndex(i => i.name === "scene"));
  bear.connect(0, layout, layout.inputs.findIndex(i => i.name === "scene"));
  window.app.canvas.ds.scale = 1; window.app.canvas.ds.offset = [0, 0];
  graph.setDirtyCanvas(true, true);
  return layout.id;
}"""
BOXES = "() => JSON.parse(window.app.graph._nodes.find(n => n.type === 'RelateLayout')" \
        ".widgets.find(w => w.name === 'bboxes').value)"


@pytest.fixture
def editor(page):  # noqa: F811
    """The editor's canvas: [left, top, pixels of the page for one pixel of the picture]."""
    page.evaluate(BUILD)
    page.wait_for_timeout(1000)
    canvas = page.locator("canvas.relate-boxes")
    bounds = canvas.bounding_box()
    scale = min(bounds["width"] - 20, bounds["height"] - 20) / 1024  # a margin of 10 on each side
    left = bounds["x"] + (bounds["width"] - 1024 * scale) / 2
    top = bounds["y"] + (bounds["height"] - 1024 * scale) / 2
    return left, top, scale


def drag(page, editor, start, end):  # noqa: F811
    left, top, scale = editor
    page.mouse.move(left + start[0] * scale, top + start[1] * scale)
    page.mouse.down()
    page.mouse.move(left + (start[0] + end[0]) / 2 * scale, top + (start[1] + end[1]) / 2 * scale)
    page.mouse.move(left + end[0] * scale, top + end[1] * scale)
    page.mouse.up()
    page.wait_for_timeout(200)


def test_boxes_are_moved_sized_added_and_removed(page, editor):  # noqa: F811
    near = pytest.approx
    left, top, scale = editor
    slack = 8 + 2 / scale
    drag(page, editor, (256, 512), (384, 512))  # the first box, to the right
    boxes = page.evaluate(BOXES)
    assert boxes[0] == {"x": near(128, abs=slack), "y": 0, "width": 512, "height": 1024}
    drag(page, editor, (boxes[0]["x"] + 512, 1024), (512, 800))  # its corner
    boxes = page.evaluate(BOXES)
    assert boxes[0]["width"] == near(512 - boxes[0]["x"], abs=slack) and boxes[0]["height"] == near(800, abs=slack)
    page.mouse.dblclick(left + 900 * scale, top + 300 * scale)  # the second box
    page.wait_for_timeout(200)
    assert len(page.evaluate(BOXES)) == 1
    drag(page, editor, (640, 200), (960, 900))  # a new one
    boxes = page.evaluate(BOXES)
    assert boxes[1] == {"x": near(640, abs=slack), "y": near(200, abs=slack), "width": near(320, abs=2 * slack),
                        "height": near(700, abs=2 * slack)}
    page.screenshot(path=SHOTS / "box_editor.png")
    queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    layout = next(node for node in queued.values() if node["class_type"] == "RelateLayout")
    assert json.loads(layout["inputs"]["bboxes"]) == boxes
    assert "relate_boxes" not in layout["inputs"]
    assert errors_of_ours(page) == []


def test_a_text_that_is_no_list_is_left_alone(page, editor):  # noqa: F811
    text = "() => window.app.graph._nodes.find(n => n.type === 'RelateLayout').widgets.find(w => w.name === 'bboxes')"
    page.evaluate(f"() => {{ ({text})().value = 'half a li' }}")
    drag(page, editor, (256, 512), (384, 512))
    assert page.evaluate(f"() => ({text})().value") == "half a li"
    assert errors_of_ours(page) == []
