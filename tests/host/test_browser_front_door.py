"""What a newcomer meets on the page: Subjects that differ, the relation's own words, notices, and search."""

from __future__ import annotations

import json

import pytest

from tests.host.conftest import MINIWORLD_RELATION, ROOT
from tests.host.page import open_page
from tests.host.test_browser import errors_of_ours

TOASTS = "() => [...document.querySelectorAll('.p-toast-message')].map(e => e.textContent)"
TWO_OF_A_KIND = ROOT / "tests" / "host" / "graphs" / "miniworld_two_subjects_relation.json"


@pytest.fixture(scope="module")
def page(comfy_server):
    with open_page(comfy_server.url) as page:
        yield page


def test_new_subjects_have_names_and_places_of_their_own(page):
    values = page.evaluate("""() => {
      window.app.graph.clear();
      return [0, 1, 2].map(() => {
        const node = LiteGraph.createNode("RelateSubject");
        window.app.graph.add(node);
        return Object.fromEntries(node.widgets.map(w => [w.name, w.value]));
      });
    }""")
    assert [value["name"] for value in values] == ["cat", "dog", "bear"]
    boxes = [tuple(value[edge] for edge in ("x0", "y0", "x1", "y1")) for value in values]
    assert boxes[:2] == [(0, 0, 0.55, 1), (0.45, 0, 1, 1)]


def test_load_relation_lists_relations_first_and_shows_an_example(page, comfy_server):
    inputs = comfy_server.object_info()["RelateRelationLoader"]["input"]["required"]
    options, extra = inputs["lora_name"][0], inputs["lora_name"][1]
    names = options if isinstance(options, list) else extra["options"]
    relations = list(extra["relate_examples"])
    assert MINIWORLD_RELATION.name in relations and len(names) > len(relations)
    assert set(relations) <= set(names[: len(names) - 1])
    first_other = next(place for place, name in enumerate(names) if name not in relations)
    assert all(names.index(name) < first_other for name in relations)
    shown = page.evaluate(
        """async name => {
      window.app.graph.clear();
      const node = LiteGraph.createNode("RelateRelationLoader");
      window.app.graph.add(node);
      const file = node.widgets.find(w => w.name === "lora_name");
      file.value = name;
      file.callback(name);
      return node.widgets.find(w => w.name === "relate_example").element.textContent;
    }""",
        MINIWORLD_RELATION.name,
    )
    assert shown == f"e.g. {extra['relate_examples'][MINIWORLD_RELATION.name]}"
    queued = page.evaluate("async () => Object.values((await window.app.graphToPrompt()).output)[0].inputs")
    assert "relate_example" not in queued


def test_a_notice_is_shown_on_the_page(page, comfy_server):
    graph = json.loads(TWO_OF_A_KIND.read_text(encoding="utf-8"))
    for subject in ("2", "4"):
        graph[subject]["inputs"]["name"] = "fox"  # two subjects of one name
    encode = next(name for name, node in graph.items() if node["class_type"] == "RelateEncodeIdentity")
    graph = {name: graph[name] for name in ("1", "2", "3", "4", "5", "7", encode)}
    graph["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["5", 1]}}
    graph["keep"] = {"class_type": "PreviewAny", "inputs": {"source": [encode, 0]}}
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    page.wait_for_function(f"() => ({TOASTS})().some(text => text.includes(\"more than one subject is named 'fox'\"))")
    assert "more than one subject is named 'fox'" in comfy_server.log
    assert errors_of_ours(page) == []


@pytest.mark.parametrize("words, node", [
    ("hug", "RelateRelationLoader"), ("two subjects", "RelateSubject"), ("interaction", "RelateRelationLoader"),
    ("ms-diffusion", "RelateApplyIdentity"), ("hug", "RelateScenePrompt"), ("two subjects", "RelateApplyIdentity"),
])  # fmt: skip
def test_search_knows_the_node_by_what_people_say(comfy_server, words, node):
    info = comfy_server.object_info()[node]
    if "search_aliases" not in info:
        pytest.skip("this ComfyUI has no search aliases")
    assert words in info["search_aliases"]
