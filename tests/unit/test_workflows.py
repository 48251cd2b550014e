"""The shipped workflows and help pages, read as files: what would greet a user with a red node, without a ComfyUI."""

import ast
import itertools
import json
import re
import struct
from pathlib import Path

import pytest

from training.miniworld.world.relations import SEEN
from training.miniworld.world.single_and_group_poses import SINGLES, TRIOS
from training.miniworld.world.traits import SPECIES

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "workflows" / "index.json"
WORKFLOWS = sorted(path for path in (ROOT / "workflows").glob("*.json") if path != INDEX)
API_GRAPHS = ROOT / "tests" / "host" / "graphs"
STOCK = {
    "BasicScheduler", "CFGGuider", "CFGNorm", "CLIPLoader", "CLIPTextEncode", "CLIPVisionLoader", "Canny",
    "CheckpointLoaderSimple", "ConditioningZeroOut", "ControlNetApplyAdvanced", "ControlNetLoader",
    "CreateHookKeyframe", "CreateHookLora", "DualCFGGuider", "DualCLIPLoader", "EmptyFlux2LatentImage",
    "EmptyLatentImage", "EmptySD3LatentImage", "Flux2Scheduler", "FluxGuidance",
    "FluxKontextMultiReferenceLatentMethod", "ImageBatch", "ImageScale", "ImageScaleBy", "ImageToMask", "InvertMask",
    "KSampler", "KSamplerSelect", "LoadImage", "MaskComposite", "MaskToImage", "ModelSamplingAuraFlow",
    "ModelSamplingSD3", "PairConditioningSetProperties", "PreviewAny", "PreviewImage", "PrimitiveString",
    "RandomNoise", "ReferenceLatent", "SAM3_Detect", "SamplerCustomAdvanced", "SaveImage", "SaveWEBM",
    "SetHookKeyframes", "SolidMask", "UNETLoader", "VAEDecode", "VAEEncode", "VAELoader", "Wan22ImageToVideoLatent",
}  # fmt: skip
NOTES = {"Note", "MarkdownNote"}  # known to the page only, never sent to the server
MODEL_FOLDERS = {
    "checkpoints",
    "clip_vision",
    "controlnet",
    "diffusion_models",
    "loras",
    "relate",
    "text_encoders",
    "vae",
}
# values the page keeps among the widgets' and does not send: what becomes of the seed, LoadImage's upload button
PAGE_ONLY = {"KSampler": {1}, "LoadImage": {1}, "RandomNoise": {1}, "RelateRoutingSampler": {1}}
TITLE = 30  # a node's title stands above its position, a group's inside its box
MAX_THUMBNAIL = 60 * 1024


def our_nodes() -> list[str]:
    """The ids listed in nodes/__init__.py, read without importing it (it needs ComfyUI)."""
    tree = ast.parse((ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "GROUPS"]
    return list(itertools.chain.from_iterable(ast.literal_eval(values[0]).values()))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def box(node: dict) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a node with its title."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def downloads_nothing(path: Path) -> bool:
    """The miniworld's graphs: whatever they need comes with the pack."""
    return path.stem.startswith("miniworld_")


def overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def test_there_are_workflows_and_nothing_but_their_files():
    """ComfyUI serves the folder as templates: flat, a JSON and a picture each."""
    names = sorted(path.name for path in (ROOT / "workflows").iterdir())
    assert names == sorted(f"{path.stem}.{end}" for path in (*WORKFLOWS, INDEX) for end in ("jpg", "json")) != []


def test_the_index_names_and_describes_every_graph_and_opens_as_their_list():
    """Template browsers that read an index get titles and descriptions; those that do not open it as a note."""
    index = read(INDEX)
    names = [template["name"] for template in index["templates"]]
    assert sorted(names) == [path.stem for path in WORKFLOWS]
    assert names[0] == "sdxl_two_subjects_relation"
    ((note,),) = [node["widgets_values"] for node in index["nodes"]]
    for template in index["templates"]:
        assert template["mediaSubtype"] == "jpg" and template["title"] and template["tags"]
        assert f"- **{template['name']}**: {template['title']}. {template['description']}" in note


@each_workflow
def test_every_node_is_ours_or_stock_and_says_it_is_version_04(path):
    workflow = read(path)
    assert workflow["version"] == 0.4
    assert {node["type"] for node in workflow["nodes"]} <= {*our_nodes(), *STOCK, *NOTES}


@each_workflow
def test_links_join_slots_that_exist_and_agree(path):
    workflow = read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"]) and max(nodes) <= workflow["last_node_id"]
    links = {link[0]: link[1:] for link in workflow["links"]}
    assert len(links) == len(workflow["links"]) and max(links) <= workflow["last_link_id"]
    for link, (source, output, target, slot, kind) in links.items():
        given, wanted = nodes[source]["outputs"][output], nodes[target]["inputs"][slot]
        assert given["type"] == kind and wanted["type"] in (kind, "*")
        assert link in given["links"] and wanted["link"] == link
    at_outputs = [link for node in nodes.values() for output in node["outputs"] for link in output["links"]]
    at_inputs = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    assert sorted(at_outputs) == sorted(at_inputs) == sorted(links)


@each_workflow
def test_required_sockets_are_connected(path):
    """Optional sockets are drawn hollow (shape 7); all others must have a link."""
    loose = [
        f"{node['type']}.{slot['name']}"
        for node in read(path)["nodes"]
        for slot in node["inputs"]
        if slot["link"] is None and slot.get("shape") != 7
    ]
    assert loose == []


@each_workflow
def test_the_api_graph_is_the_same_graph(path):
    """Node by node: links, and widget values in the order of the inputs."""
    workflow, api = read(path), read(API_GRAPHS / path.name)
    origin = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    nodes = {str(node["id"]): node for node in workflow["nodes"] if node["type"] not in NOTES}
    assert set(nodes) == set(api)
    for node_id, node in nodes.items():
        inputs = api[node_id]["inputs"]
        assert node["type"] == api[node_id]["class_type"]
        linked = {slot["name"]: origin[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        assert linked == {name: value for name, value in inputs.items() if isinstance(value, list)}
        hidden = PAGE_ONLY.get(node["type"], set())
        sent = [value for index, value in enumerate(node["widgets_values"]) if index not in hidden]
        sockets = {slot["name"] for slot in node["inputs"] if "widget" not in slot}
        told = dict(zip((name for name in inputs if name not in sockets), sent, strict=True))
        assert told | linked == inputs


@each_workflow
def test_nothing_lies_on_anything_else(path):
    workflow = read(path)
    nodes = workflow["nodes"]
    boxes = {node["id"]: box(node) for node in nodes}
    piled = [(a, b) for a, b in itertools.combinations(boxes, 2) if overlap(boxes[a], boxes[b])]
    groups = {group["title"]: group["bounding"] for group in workflow["groups"]}
    corners = {title: (x, y, x + width, y + height) for title, (x, y, width, height) in groups.items()}
    piled += [(a, b) for a, b in itertools.combinations(corners, 2) if overlap(corners[a], corners[b])]
    assert piled == []


@each_workflow
def test_every_node_but_the_note_lies_inside_one_coloured_titled_group(path):
    workflow = read(path)
    for group in workflow["groups"]:
        assert group["title"] and re.fullmatch("#([0-9a-fA-F]{3}){1,2}", group["color"])
    for node in workflow["nodes"]:
        left, top, right, bottom = box(node)
        homes = [
            group["title"]
            for group in workflow["groups"]
            for x, y, width, height in [group["bounding"]]
            if x <= left and y <= top and right <= x + width and bottom <= y + height
        ]
        assert len(homes) == (0 if node["type"] in NOTES else 1), node["type"]


@each_workflow
def test_the_note_names_every_file_that_a_loader_asks_for(path):
    nodes = read(path)["nodes"]
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] in NOTES]
    files = [
        value
        for node in nodes
        if node["type"].endswith(("Loader", "LoaderSimple"))
        for value in node["widgets_values"]
        if isinstance(value, str)
    ]
    assert files or downloads_nothing(path)
    assert [name for name in files if name not in note] == []


@each_workflow
def test_file_names_in_the_note_are_bold_text(path):
    """Nodes 2.0 draws code in a colour that cannot be read on a note."""
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    assert "`" not in note


@pytest.mark.parametrize("path", filter(downloads_nothing, WORKFLOWS), ids=lambda path: path.stem)
def test_the_note_lists_the_words_that_the_miniworlds_models_know(path):
    (note,) = [node["widgets_values"][0] for node in read(path)["nodes"] if node["type"] in NOTES]
    lists = dict(re.findall(r"^- \*\*(Creatures|Relations|What)[^*]*\*\* ([^.;]*)", note, re.MULTILINE))
    if not lists:
        assert "are in *miniworld_two_subjects_relation*" in note
        return
    assert {*lists["Creatures"].split(", ")} == {*SPECIES}
    known = {*SEEN} - {"back to back"}  # which no name may follow
    expected = known if "Relations" in lists else {*(SINGLES if "one" in path.stem else TRIOS)}
    assert {*(lists.get("Relations") or lists["What"]).split(", ")} == expected


@each_workflow
def test_download_links_are_of_the_files_the_widgets_name(path):
    models = [
        (model, node["widgets_values"])
        for node in read(path)["nodes"]
        for model in node["properties"].get("models", [])
    ]
    assert bool(models) != downloads_nothing(path)
    for model, values in models:
        assert model["name"] in values and model["directory"] in MODEL_FOLDERS
        assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/resolve/main/\S+", model["url"])
        assert model["url"].endswith("/" + model["name"])


@each_workflow
def test_the_thumbnail_is_a_small_jpeg(path):
    picture = path.with_suffix(".jpg").read_bytes()
    assert len(picture) <= MAX_THUMBNAIL
    width, height = jpeg_size(picture)
    assert 400 <= width <= 800 and 400 <= height <= 800


def jpeg_size(picture: bytes) -> tuple[int, int]:
    """Width and height from the first frame header."""
    assert picture[:2] == b"\xff\xd8"
    at = 2
    while picture[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + struct.unpack(">H", picture[at + 2 : at + 4])[0]
    height, width = struct.unpack(">HH", picture[at + 5 : at + 9])
    return width, height


@pytest.mark.parametrize("node_id", our_nodes())
def test_every_node_has_a_help_page_that_names_its_inputs(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith("# ") and "## Inputs" in page and "## Outputs" in page and "arXiv" in page
    graphs = [read(API_GRAPHS / path.name) for path in WORKFLOWS]
    uses = [node for graph in graphs for node in graph.values() if node["class_type"] == node_id]
    named = set(itertools.chain.from_iterable(node["inputs"] for node in uses))
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_there_is_no_help_page_of_a_node_that_is_gone():
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages <= set(our_nodes())
