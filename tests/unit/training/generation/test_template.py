"""Templates: places by titles, faults in one message, surplus places cut away."""

import json
from dataclasses import replace

import pytest

from tests.unit.training.generation.orders import edit_graph, node, text_graph, write
from training.generation import licences
from training.generation.engines.comfyui import SHIPPED, template_file
from training.generation.request import Request
from training.generation.scenes import scene_of
from training.generation.template import read_template, remove_nodes

SCENE = scene_of("hugging", [("wolf", "owl")], 1, 1, 0)
REQUEST = Request("edit", "a wolf alone", "", 64, 48, 7, SCENE, 1)
IMAGES = {"klein_4b_edit": 3, "qwen_edit_2511": 3, "miniworld_edit": 2}


def read(tmp_path, graph, images=0):
    return read_template(tmp_path / write(tmp_path / "edit.json", graph).split("/")[-1], images)


def test_values_go_where_the_titles_say(tmp_path):
    graph = {**edit_graph(), "8": node("RelateSubject", "Relate: name1", name="", image=["5", 0])}
    filled = read(tmp_path, graph, 2).filled(REQUEST, {1: "relate/x.png", 2: "y.png"})
    assert filled["1"]["inputs"]["text"] == "a wolf alone" and filled["3"]["inputs"]["seed"] == 7
    assert (filled["2"]["inputs"]["width"], filled["2"]["inputs"]["height"]) == (64, 48)
    assert (filled["5"]["inputs"]["image"], filled["6"]["inputs"]["image"]) == ("relate/x.png", "y.png")
    assert filled["8"]["inputs"]["name"] == "owl"
    assert graph["1"]["inputs"]["text"] == ""


def test_a_template_keeps_its_own_negative_prompt_unless_there_is_one(tmp_path):
    graph = {**text_graph(), "8": node("CLIPTextEncode", "relate:negative", text="blurred")}
    template = read(tmp_path, graph)
    assert template.filled(REQUEST, {})["8"]["inputs"]["text"] == "blurred"
    assert template.filled(replace(REQUEST, negative="dark"), {})["8"]["inputs"]["text"] == "dark"


def test_what_the_server_is_sent_is_a_template_too(tmp_path):
    assert read(tmp_path, {"prompt": text_graph(), "client_id": "x"}).graph == text_graph()


def test_a_workflow_for_the_editor_is_named_as_such(tmp_path):
    with pytest.raises(
        ValueError, match=r"edit.json: a workflow for the editor \(nodes, links\), expected the API form"
    ):
        read(tmp_path, {"nodes": [{"id": 1}], "links": []})


@pytest.mark.parametrize(
    "graph, words",
    [
        ([], "expected a workflow in API format"),
        ({"1": {"inputs": {}}}, '"1" has no class_type'),
        ({"1": {"class_type": "KSampler"}}, "node 1 (KSampler) has no inputs"),
    ],
)
def test_what_is_no_workflow_is_said_so(tmp_path, graph, words):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, graph)
    assert words in str(caught.value)


def test_all_missing_and_unknown_places_come_in_one_message(tmp_path):
    graph = text_graph()
    graph["1"]["_meta"]["title"] = "relate:promt"
    graph["3"]["_meta"]["title"] = "KSampler"
    graph["2"] = node("Constant", "relate:width", number=3)
    with pytest.raises(ValueError) as caught:
        read(tmp_path, graph, 1)
    for part in (
        'node 1, "relate:promt": unknown. Did you mean prompt?',
        'node 2 (Constant), "relate:width": has no input of width, value.',
        'no node titled "relate:prompt", "relate:seed", "relate:image1"',
    ):
        assert part in str(caught.value)


def test_one_node_that_saves_is_the_output(tmp_path):
    graph = text_graph()
    del graph["4"]["_meta"]
    graph["9"] = {**node("Note"), "_meta": ["not ComfyUI's"]}
    assert read(tmp_path, graph).places["output"] == ("4",)
    two = {**text_graph(), "9": node("PreviewImage", "relate:output", images=["3", 0])}
    with pytest.raises(ValueError, match='2 nodes titled "relate:output"; expected one'):
        read(tmp_path, two)
    with pytest.raises(ValueError, match='no node titled "relate:output"'):
        read(tmp_path, {**graph, "9": node("PreviewImage", images=["3", 0])})


def test_a_place_without_a_picture_goes_with_what_needs_it(tmp_path):
    template = read(tmp_path, edit_graph(), 2)
    assert template.surplus(1) == ["6"] and template.surplus(2) == []
    graph = remove_nodes(template.filled(REQUEST, {1: "x.png"}), ["6"], lambda kind, name: kind == "VAEEncode")
    assert set(graph) == set(edit_graph()) - {"6", "7"}
    assert graph["1"]["inputs"] == {"text": "a wolf alone", "image1": ["5", 0]}
    assert "4" not in remove_nodes(graph, ["5"], lambda kind, name: True)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_templates_have_their_places_and_known_licences(path):
    template = read_template(template_file(path.stem), IMAGES.get(path.stem, 0))
    assert {"width", "height"} <= set(template.places)
    models = licences.models_of(json.loads(path.read_text(encoding="utf-8")))
    unknown = {"flux2-vae.safetensors", "ae.safetensors"}  # not stated with the files
    assert models and {licences.licence_of(file)[0] for file in set(models) - unknown} <= {"Apache-2.0", "MIT"}
    assert licences.notes(models) == []


def test_restricted_models_are_noted():
    assert licences.licence_of("FLUX1/flux1-dev-kontext_fp8_scaled.safetensors")[0].startswith("FLUX.1 [dev]")
    assert "non-commercial" in licences.notes(["sub\\flux-2-klein-9b.safetensors", "x.safetensors"])[0]
    assert licences.notes(["models\\FLUX.2-klein-9B/"]) == ["FLUX.2 klein 9B is for non-commercial use."]
    assert licences.licence_of("flux-2-klein-4b-fp8.safetensors") == ("Apache-2.0", "")
    assert licences.licence_of("mine.safetensors") == (licences.UNKNOWN, "")
    assert licences.joined_licence(licences.origin_models(["mine.pt", "z_image.gguf"])) == "not known; Apache-2.0"
