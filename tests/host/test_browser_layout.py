"""The shipped graphs as the page draws them, in both renderers: nothing overlaps, and the note is read first.

Screenshots at a laptop's size are kept in out/browser/, to be looked at.
"""

from __future__ import annotations

import itertools
import json

import pytest

from tests.host.conftest import ROOT
from tests.host.page import has_nodes2, open_page, open_workflow, rectangles, use_renderer

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
SHOTS = ROOT / "out" / "browser"
SIDEBAR, MENU = 60, 75  # pixels that the page's own bars cover, left and top
READABLE = 0.75  # of the size that the page gives its text at full zoom
VIEW = """() => {
  const {scale, offset} = window.app.canvas.ds, page = window.app.canvas.canvas.getBoundingClientRect();
  return [scale, offset[0] * scale + page.left, offset[1] * scale + page.top];
}"""


@pytest.fixture(scope="module", params=["classic", "nodes2"])
def page(comfy_server, request):
    SHOTS.mkdir(parents=True, exist_ok=True)
    use_renderer(comfy_server.url, nodes2=request.param == "nodes2")
    with open_page(comfy_server.url) as page:
        first = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
        open_workflow(page, first)
        if request.param == "nodes2" and not has_nodes2(page, first):
            pytest.skip("this ComfyUI's page has no finished Nodes 2.0")
        page.renderer = request.param
        yield page
    use_renderer(comfy_server.url, nodes2=False)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_opens_readable_and_without_overlap(page, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    open_workflow(page, workflow, source="template")
    page.screenshot(path=SHOTS / f"{path.stem}_{page.renderer}.png")
    drawn = rectangles(page)
    assert set(drawn) == {str(node["id"]) for node in workflow["nodes"]}
    names = {str(node["id"]): node["type"] for node in workflow["nodes"]}
    assert [(names[a], names[b]) for a, b in itertools.combinations(drawn, 2) if overlap(drawn[a], drawn[b])] == []

    scale, left, top = page.evaluate(VIEW)
    (note,) = [drawn[node] for node, kind in names.items() if kind == "MarkdownNote"]
    assert scale >= READABLE
    assert SIDEBAR <= note[0] * scale + left and note[2] * scale + left <= 1440
    assert MENU <= note[1] * scale + top <= 200


def overlap(a: tuple, b: tuple) -> bool:
    """Whether two rectangles share more than a pixel's breadth (sizes are drawn in fractions of one)."""
    return a[0] + 1 < b[2] and b[0] + 1 < a[2] and a[1] + 1 < b[3] and b[1] + 1 < a[3]
