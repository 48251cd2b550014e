"""Everything of ComfyUI's page that ARCHITECTURE.md lists is there in the page under test."""

from __future__ import annotations

from tests.host.page import open_page
from tests.host_map import places

MISSING = """async (places) => {
  const {app} = await import("/scripts/app.js"), {api} = await import("/scripts/api.js");
  const node = LiteGraph.createNode("RelateSubject");
  app.graph.add(node);
  return places.filter((place) => {
    const [root, ...names] = place.split(".");
    let value = {app, api, node}[root];
    for (const name of names) value = value?.[name];
    return value === undefined;
  });
}"""


def test_everything_of_the_page_that_the_pack_leans_on_is_there(comfy_server):
    listed = [place.text.removeprefix("page: ") for place in places() if place.text.startswith("page: ")]
    with open_page(comfy_server.url) as page:
        assert listed and page.evaluate(MISSING, listed) == []
