"""The way of somebody with two photographs of their own, from ComfyUI's page to a queued picture, clicked and counted.

docs/first_picture.md lists the same steps. The model files lie where the graph's note says; the prompt that the page
queues is looked at and not drawn, as there is no real checkpoint here.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.host.conftest import PACK_FOLDER, ROOT
from tests.host.page import has_nodes2, open_page, open_workflow, use_renderer
from tests.host.pictures import photograph, png
from tests.host.test_browser import SHOTS, errors_of_ours

FILES = ("checkpoints/sd_xl_base_1.0.safetensors", "clip_vision/clip_vision_g.safetensors",
         "loras/hugging.safetensors", "loras/shaking_hands.safetensors")  # fmt: skip
GRAPH = ROOT / "workflows" / "sdxl_two_subjects_relation.json"
MOST_ACTIONS = 12


@pytest.fixture(scope="module")
def page(comfy_server):
    made = [comfy_server.base / "models" / name for name in FILES] + [comfy_server.base / "input" / "example.png"]
    for path in made:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(png(photograph(64, 64)))
    use_renderer(comfy_server.url, nodes2=True)
    with open_page(comfy_server.url) as page:
        yield page
    use_renderer(comfy_server.url, nodes2=False)
    for path in made:
        path.unlink()


def test_a_newcomers_first_picture_takes_twelve_actions(page, tmp_path):
    queued, actions = [], []
    page.route(
        "**/prompt",
        lambda route: (
            queued.append(route.request.post_data_json),
            route.fulfill(json={"prompt_id": "1", "number": 1, "node_errors": {}}),
        ),
    )
    for name in ("cat", "bear"):
        (tmp_path / f"my_{name}.png").write_bytes(png(photograph(96, 64)))

    def act(what, *steps):
        actions.extend(f"{what}: {step.__name__}" for step in steps)
        for step in steps:
            step()

    def node(number):
        return page.locator(f"[data-node-id='{number}']")

    templates = page.locator(".templates-tab-button, [aria-label*='emplates']").first
    if templates.count() == 0:
        pytest.skip("this ComfyUI's page has no templates button")
    act("templates", templates.click)
    page.wait_for_timeout(1500)
    act("the pack", page.get_by_text(PACK_FOLDER, exact=True).first.click)
    page.wait_for_timeout(1000)
    listed = page.get_by_text("sdxl_two_subjects_relation", exact=True).first
    if not listed.count():  # the floor's template browser shows no names; without Nodes 2.0 nothing is counted there
        open_workflow(page, json.loads(GRAPH.read_text(encoding="utf-8")))
        if not has_nodes2(page, json.loads(GRAPH.read_text(encoding="utf-8"))):
            pytest.skip("this ComfyUI's page has no finished Nodes 2.0")
    act("the graph", listed.click)
    page.wait_for_timeout(3000)
    if not has_nodes2(page, json.loads(GRAPH.read_text(encoding="utf-8"))):
        pytest.skip("this ComfyUI's page has no finished Nodes 2.0")
    for number, name in ((1, "cat"), (3, "bear")):

        def choose_file(number=number, name=name):
            node(number).locator("input[type=file]").set_input_files(tmp_path / f"my_{name}.png")

        actions.append(f"photograph {name}: open the file dialog")
        act(f"photograph {name}", choose_file)
    for number, name in ((2, "tabby cat"), (4, "teddy bear")):

        def write_name(number=number, name=name):
            node(number).locator("input[type=text]").first.fill(name)

        act(f"name {name}", write_name)
    act("relation", node(8).locator("button[aria-label=lora_name]").click)
    page.wait_for_timeout(500)
    act("relation", page.get_by_role("option", name=re.compile("shaking_hands")).first.click)
    page.wait_for_timeout(1500)
    page.screenshot(path=SHOTS / "newcomer.png")
    act("run", page.get_by_role("button", name="Run", exact=True).first.click)
    page.wait_for_timeout(2000)

    assert len(actions) <= MOST_ACTIONS, actions
    (prompt,) = [request["prompt"] for request in queued]
    kinds = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
    assert {prompt[n]["inputs"]["image"] for n in ("1", "3")} == {"my_cat.png", "my_bear.png"}
    assert [prompt[n]["inputs"]["name"] for n in ("2", "4")] == ["tabby cat", "teddy bear"]
    assert kinds["RelateRelationLoader"]["lora_name"] == "shaking_hands.safetensors"
    assert prompt["11"]["inputs"]["text"] == ["20", 0]  # the prompt is made from the names
    assert prompt["20"]["class_type"] == "RelateScenePrompt"
    assert errors_of_ours(page) == []
    listed = re.findall(r"^\d+\. ", (ROOT / "docs" / "first_picture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) == len(actions)
