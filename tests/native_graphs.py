"""Three ways to draw two subjects on a model with references of its own, made from the shipped graphs.

plain      one pass, each reference free to act everywhere: the model's own wiring
kept       one pass, each reference kept in its box
per subject  what users do without this pack: one conditioning and one reference for each subject, masked with
           Conditioning (Set Mask) and combined; the network runs once for each subject
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

GRAPHS = Path(__file__).parent / "host" / "graphs"
ENGINES = {
    "Flux.2 Klein": "flux2_klein_two_subjects",
    "Qwen-Image-Edit 2511": "qwen_edit_2511_two_subjects",
    "Flux Kontext": "kontext_two_subjects",
    "OmniGen2": "omnigen2_two_subjects",
}
WAYS = ("plain", "kept", "per subject")
BOXES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))  # together they cover the picture, as masks must
# what stands for a graph's file where it is not there under its own name
_ALIKE = {
    "flux-2-klein-base-4b-fp8.safetensors": r"flux.?2.*klein.*4b",
    "qwen_3_4b.safetensors": r"qwen.?3.?4b",
    "flux2-vae.safetensors": r"flux2.*vae|full_encoder_small_decoder",
    "qwen_image_edit_2511_bf16.safetensors": r"qwen.*edit.*2511",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": r"qwen.?2\.?5.?vl.?7b",
    "qwen_image_vae.safetensors": r"qwen.?image.?vae",
    "flux1-dev-kontext_fp8_scaled.safetensors": r"kontext",
    "t5xxl_fp16.safetensors": r"t5.?xxl",
    "clip_l.safetensors": r"clip_l",
    "ae.safetensors": r"(^|/)ae\.(safetensors|sft)$",
    "omnigen2_fp16.safetensors": r"omnigen2",
    "qwen_2.5_vl_fp16.safetensors": r"qwen_2\.5_vl_(3b_)?(fp|bf)16",
}
_LOADERS = ("UNETLoader", "CLIPLoader", "DualCLIPLoader", "VAELoader")
_FILES = ("unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name")


def read_graph(engine: str) -> dict:
    """The shipped graph of an engine, its boxes the two halves of the picture."""
    graph = json.loads((GRAPHS / f"{ENGINES[engine]}.json").read_text(encoding="utf-8"))
    (layout,) = _of(graph, "RelateLayout")
    _link(graph, layout, 0, graph[layout]["inputs"]["scene"])
    del graph[layout]
    for subject, box in zip(_of(graph, "RelateSubject"), BOXES, strict=True):
        graph[subject]["inputs"].update(zip(("x0", "y0", "x1", "y1"), box, strict=True))
    return _without_previews(graph)


def with_files(graph: dict, choices: Callable[[str, str], list[str]]) -> tuple[dict, list[str]]:
    """A graph with the files that a ComfyUI has.

    Args:
        choices: what a loader's input offers, by its class and name.

    Returns:
        The graph, and the files for which there is nothing alike.
    """
    graph, missing = copy.deepcopy(graph), []
    for node in (node for node in graph.values() if node["class_type"] in _LOADERS):
        for name in (name for name in _FILES if name in node["inputs"]):
            wanted = node["inputs"][name]
            found = find_file(wanted, choices(node["class_type"], name))
            if found is None:
                missing.append(wanted)
            else:
                node["inputs"][name] = found
    return graph, missing


def find_file(wanted: str, offered: Sequence[str]) -> str | None:
    """A file of that name in any folder, else one that its name says is of the same model."""
    paths = {file: file.replace("\\", "/") for file in offered}
    own = [file for file, path in paths.items() if path.rsplit("/", 1)[-1] == wanted]
    alike = [file for file, path in paths.items() if re.search(_ALIKE.get(wanted, r"$^"), path.lower())]
    return next(iter([*own, *alike]), None)


def with_request(graph: dict, images: Sequence[str], names: Sequence[str], prompt: str, seed: int, size: int) -> dict:
    """A graph for given photographs, names, prompt, seed and side of the picture."""
    graph = copy.deepcopy(graph)
    for node, image in zip(_of(graph, "LoadImage"), images, strict=True):
        graph[node]["inputs"]["image"] = image
    for node, name in zip(_of(graph, "RelateSubject"), names, strict=True):
        graph[node]["inputs"]["name"] = name
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "RelateApplyScene":
            inputs["prompt"] = prompt
        inputs.update({name: size for name in ("width", "height") if isinstance(inputs.get(name), int)})
        inputs.update({name: seed for name in ("seed", "noise_seed") if name in inputs})
    return graph


def in_a_way(graph: dict, way: str, strength: float) -> dict:
    """A graph drawn in one of WAYS."""
    graph = copy.deepcopy(graph)
    (scene,) = _of(graph, "RelateApplyScene")
    graph[scene]["inputs"]["strength"] = strength if way == "kept" else 0.0
    return _per_subject(graph, scene) if way == "per subject" else graph


def _per_subject(graph: dict, scene: str) -> dict:
    """One Apply Scene for each subject, unsteered; both sides masked to its box and combined."""
    size = graph[scene]["inputs"]["width"], graph[scene]["inputs"]["height"]
    sides: dict[int, list] = {1: None, 2: None}  # output of Apply Scene: the combined conditioning so far
    for subject in _of(graph, "RelateSubject"):
        inputs = graph[subject]["inputs"]
        graph[alone := f"{subject}_alone"] = {
            "class_type": "RelateSubject",
            "inputs": {key: value for key, value in inputs.items() if key != "scene"},
        }
        graph[own := f"{scene}_{subject}"] = {
            "class_type": "RelateApplyScene",
            "inputs": {**graph[scene]["inputs"], "scene": [alone, 0], "strength": 0.0, "wording": "references"},
        }
        mask = _mask(graph, subject, tuple(inputs[edge] for edge in ("x0", "y0", "x1", "y1")), size)
        for output in sides:
            graph[masked := f"{own}_{output}"] = {
                "class_type": "ConditioningSetMask",
                "inputs": {"conditioning": [own, output], "mask": mask, "strength": 1.0, "set_cond_area": "default"},
            }
            before, sides[output] = sides[output], [masked, 0]
            if before is not None:
                graph[both := f"{masked}_and_before"] = {
                    "class_type": "ConditioningCombine",
                    "inputs": {"conditioning_1": before, "conditioning_2": [masked, 0]},
                }
                sides[output] = [both, 0]
    for output, link in ((0, [own, 0]), (3, [own, 3]), *sides.items()):
        _link(graph, scene, output, link)
    for node in (scene, *_chained(graph)):
        del graph[node]
    return graph


def _chained(graph: dict) -> list[str]:
    """The subjects of the joint scene, which nothing reads any more."""
    return [node for node in _of(graph, "RelateSubject") if not node.endswith("_alone")]


def _mask(graph: dict, name: str, box: tuple[float, ...], size: tuple[int, int]) -> list:
    """A MASK of a box on a picture of ``size``, made by ComfyUI's own nodes."""
    width, height = size
    x0, y0, x1, y1 = (round(edge * side) for edge, side in zip(box, (width, height, width, height)))
    black, white, mask = (f"{name}_{part}" for part in ("black", "white", "mask"))
    graph[black] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": width, "height": height}}
    graph[white] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": x1 - x0, "height": y1 - y0}}
    graph[mask] = {
        "class_type": "MaskComposite",
        "inputs": {"destination": [black, 0], "source": [white, 0], "x": x0, "y": y0, "operation": "add"},
    }
    return [mask, 0]


def _without_previews(graph: dict) -> dict:
    """A graph without the nodes that only show something."""
    return {key: node for key, node in graph.items() if node["class_type"] not in ("PreviewAny", "PreviewImage")}


def _of(graph: dict, class_type: str) -> list[str]:
    return [key for key, node in graph.items() if node["class_type"] == class_type]


def _link(graph: dict, node: str, output: int, instead: list) -> None:
    """Let everything that reads an output of a node read another."""
    for each in graph.values():
        each["inputs"].update({name: instead for name, value in each["inputs"].items() if value == [node, output]})
