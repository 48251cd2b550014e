"""The graphs of tests/check_native: files found under other names, and the way users go without the pack."""

import pytest

from tests.native_graphs import ENGINES, WAYS, find_file, in_a_way, read_graph, with_files, with_request


def kinds(graph):
    return [node["class_type"] for node in graph.values()]


def dangling(graph):
    """Links to nodes that are not there."""
    links = [value for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    return [link for link in links if link[0] not in graph]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_every_engine_is_a_whole_graph(engine, way):
    graph = in_a_way(with_request(read_graph(engine), ["a.png", "b.png"], ["x", "y"], "x hugs y", 7, 512), way, 3.0)
    assert dangling(graph) == [] and kinds(graph).count("SaveImage") == 1
    scenes = [node["inputs"] for node in graph.values() if node["class_type"] == "RelateApplyScene"]
    assert [scene["strength"] for scene in scenes] == {"plain": [0.0], "kept": [3.0], "per subject": [0.0, 0.0]}[way]
    assert all(scene["prompt"] == "x hugs y" and scene["width"] == 512 for scene in scenes)
    assert {value for node in graph.values() for key, value in node["inputs"].items() if "seed" in key} == {7}


def test_per_subject_is_one_masked_conditioning_for_each_reference():
    graph = in_a_way(read_graph("Flux Kontext"), "per subject", 3.0)
    assert kinds(graph).count("ConditioningSetMask") == 4 and kinds(graph).count("ConditioningCombine") == 2
    subjects = [node["inputs"] for node in graph.values() if node["class_type"] == "RelateSubject"]
    assert len(subjects) == 2 and not any("scene" in inputs for inputs in subjects)
    masks = [node["inputs"] for node in graph.values() if node["class_type"] == "MaskComposite"]
    assert sorted((mask["x"], mask["y"]) for mask in masks) == [(0, 0), (512, 0)]


def test_files_are_found_in_folders_and_under_names_alike():
    assert find_file("ae.safetensors", ["other.safetensors", "flux\\ae.safetensors"]) == "flux\\ae.safetensors"
    offered = ["sd15.safetensors", "flux/FLUX.2-klein-4B-Q8_0.gguf"]
    assert find_file("flux-2-klein-base-4b-fp8.safetensors", offered) == offered[1]
    assert find_file("ae.safetensors", ["vae-ft-mse.safetensors", "taesd"]) is None


def test_what_is_missing_is_named():
    graph, missing = with_files(read_graph("OmniGen2"), lambda kind, name: ["omnigen2_q8.safetensors"])
    assert missing == ["qwen_2.5_vl_fp16.safetensors", "ae.safetensors"]
    assert "omnigen2_q8.safetensors" in {node["inputs"].get("unet_name") for node in graph.values()}
