"""Drive ComfyUI's page in a headless Chromium: open it, choose a renderer, load graphs and measure them."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

from tests.host.comfyui import find_browser

LAPTOP = {"width": 1440, "height": 900}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "() => window.app?.graph && window.app.extensionManager && document.querySelector('canvas')"
LOAD = "async ([workflow, source]) => { await window.app.loadGraphData(workflow, true, true, null, source); }"
# Left, top, width, height of every node with its title, in units of the graph: as Nodes 2.0 has laid it out where it
# draws the node, else as the classic renderer draws it.
RECTANGLES = """() => {
  const canvas = window.app.canvas, {scale, offset} = canvas.ds, page = canvas.canvas.getBoundingClientRect();
  return Object.fromEntries(window.app.graph._nodes.map(node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!element) return [node.id, [...node.getBounding()]];
    const box = element.getBoundingClientRect();
    return [node.id, [(box.left - page.left) / scale - offset[0], (box.top - page.top) / scale - offset[1],
                      box.width / scale, box.height / scale]];
  }));
}"""
TITLE = 30


def use_renderer(url: str, nodes2: bool) -> None:
    """Choose the renderer for pages opened from now on, and leave the tutorial out, which would cover the page."""
    settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": nodes2}
    request = urllib.request.Request(
        url + "/settings", json.dumps(settings).encode(), headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()


@contextlib.contextmanager
def open_page(url: str, viewport: dict[str, int] = LAPTOP) -> Iterator[Page]:
    """ComfyUI's page, ready; `page.said` collects (kind, text, place) of its console messages and errors."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        page = browser.new_page(viewport=viewport)
        page.said = []
        page.on("console", lambda message: page.said.append((message.type, message.text, str(message.location))))
        page.on("pageerror", lambda error: page.said.append(("error", str(error), error.stack or "")))
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(2000)
        yield page
        browser.close()


def has_nodes2(page: Page, workflow: dict) -> bool:
    """Whether the page draws the nodes of an open workflow with Nodes 2.0, at the widths that the file gives them.

    Frontend 1.27, the floor's, has an unfinished form behind the same setting: nodes as narrow as their text, empty
    notes, and the file's sizes overwritten by those.
    """
    drawn = page.evaluate(RECTANGLES)
    elements = page.evaluate("() => document.querySelectorAll('[data-node-id]').length")
    return elements > 0 and all(drawn[str(node["id"])][2] >= node["size"][0] - 2 for node in workflow["nodes"])


def open_workflow(page: Page, workflow: dict, source: str = "") -> None:
    """Open a workflow as a dropped file does, or with source "template" as the template browser does."""
    page.evaluate(LOAD, [workflow, {"openSource": source} if source else {}])
    wait_until_still(page)
    page.keyboard.press("Escape")


def wait_until_still(page: Page) -> None:
    """Wait until no node changes its size any more (two equal measurements 200 ms apart, at most 10 seconds)."""
    before = None
    for _ in range(50):
        page.wait_for_timeout(200)
        now = page.evaluate(RECTANGLES)
        if now == before:
            return
        before = now
    raise TimeoutError("the page's nodes did not come to rest within 10 seconds")


def rectangles(page: Page) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right, bottom of every node with its title, by the node's id."""
    drawn = page.evaluate(RECTANGLES)
    return {node: (x, y, x + width, y + height) for node, (x, y, width, height) in drawn.items()}


def rendered_sizes(page: Page) -> dict[str, tuple[int, int]]:
    """Width and height without title of every node, rounded up to even numbers."""
    drawn = page.evaluate(RECTANGLES)
    return {
        node: (round(width), 2 * round((height - TITLE) / 2 + 0.4)) for node, (_, _, width, height) in drawn.items()
    }
