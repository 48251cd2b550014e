"""API-format graphs for the tests: the shipped ones with their loaders swapped, and small ones put together here."""

from __future__ import annotations

import json
from pathlib import Path

GRAPHS = Path(__file__).parent / "graphs"

# Stock loaders need published weights; ours give tiny random models on the same sockets.
TEST_LOADERS = {
    "CheckpointLoaderSimple": ("RelateTestCheckpoint", {"kind": "sdxl", "weights_seed": 1}),
    "CLIPVisionLoader": ("RelateTestClipVision", {"weights_seed": 4}),
    "ControlNetLoader": ("RelateTestControlNet", {"weights_seed": 5}),
    "SAM3_Detect": ("SolidMask", {"value": 1.0, "width": 256, "height": 192}),
    "UNETLoader": ("RelateTestFlux", {"weights_seed": 1}),
    "DualCLIPLoader": ("RelateTestFluxClip", {"weights_seed": 2}),
    "VAELoader": ("RelateTestFluxVae", {"weights_seed": 3}),
}
RELATIONS = {"flux2": "relation_flux2.safetensors"}  # of the tiny families; else SDXL's
# graphs of models that take references natively, or make videos: by a word in the model's file name, the tiny family
NATIVE = {
    "flux-2-klein": "flux2",
    "kontext": "kontext",
    "edit_2511": "qwen_edit_2511",
    "omnigen2": "omnigen2",
    "wan2.2": "wan",
}
TEST_FILES = {
    "RelateIdentityModelLoader": {"model_name": "ms_adapter.bin"},
    "RelateRelationLoader": {"lora_name": "relation_kohya.safetensors"},
    "LoraLoaderModelOnly": {"lora_name": "relation_kohya.safetensors"},
    "CreateHookLora": {"lora_name": "relation_kohya.safetensors"},
    # the tiny Flux has fewer blocks than the LoRAs of the tests, which are for one of two
    "RelateDreamOLoader": {"preset": "custom", "turbo_lora": "none"}
    | {f"{name}_lora": "none" for name in ("dreamo", "cfg_distill", "quality_pos", "quality_neg", "sft", "dpo")},
}
SMALL = {
    "EmptyLatentImage": {"width": 256, "height": 192},
    "EmptySD3LatentImage": {"width": 256, "height": 192},
    "EmptyFlux2LatentImage": {"width": 256, "height": 192},
    "KSampler": {"steps": 2},
    "BasicScheduler": {"steps": 2},
    "Flux2Scheduler": {"steps": 2, "width": 256, "height": 192},
    "RelateApplyScene": {"width": 256, "height": 192, "reference_size": 0.0625},
    "Wan22ImageToVideoLatent": {"width": 128, "height": 96, "length": 9},
    "RelateReference": {"resolution": 256},
    "RelateRoutingSampler": {"steps": 2},
}


def shipped() -> list[Path]:
    """The API twins of workflows/*.json."""
    return sorted(GRAPHS.glob("*.json"))


def shipped_miniworld() -> list[Path]:
    """Those of them that need no file but the pack's."""
    return sorted(GRAPHS.glob("miniworld_*.json"))


def saving(graph: dict) -> list[str]:
    """Ids of the nodes that save pictures."""
    return [node_id for node_id, value in graph.items() if value["class_type"] == "SaveImage"]


def for_test(path: Path, image: str = "subject.png") -> dict:
    """A shipped graph on tiny models: loaders swapped, files renamed, two steps on a small canvas.

    The miniworld's graphs are run as they are.
    """
    graph = json.loads(path.read_text(encoding="utf-8"))
    return graph if path in shipped_miniworld() else swap_loaders(graph, image)


def swap_loaders(graph: dict, image: str = "subject.png") -> dict:
    """Replace the loaders of published weights by the test pack's, and name files that the tests have."""
    swapped = {}
    loaders = TEST_LOADERS
    if any(node["class_type"] == "UNETLoader" for node in graph.values()):
        loaders = TEST_LOADERS | {"ControlNetLoader": ("RelateTestFluxControlNet", {"weights_seed": 6})}
    loaders = loaders | native_loaders(graph)
    relation = RELATIONS.get(family_of(graph), TEST_FILES["RelateRelationLoader"]["lora_name"])
    files = TEST_FILES | {"RelateRelationLoader": {"lora_name": relation}}
    for node_id, node in graph.items():
        kind, inputs = node["class_type"], dict(node["inputs"])
        if kind in loaders:
            kind, inputs = loaders[kind]
        inputs = {**inputs, **files.get(kind, {}), **SMALL.get(kind, {})}
        if kind in ("LoadImage", "LoadImageMask"):
            inputs["image"] = image
        swapped[node_id] = {**node, "class_type": kind, "inputs": inputs}
    return swapped


def family_of(graph: dict) -> str | None:
    """The tiny family that stands for the graph's model; None for FLUX.1-dev and SDXL."""
    files = [node["inputs"]["unet_name"] for node in graph.values() if node["class_type"] == "UNETLoader"]
    return next((family for file in files for word, family in NATIVE.items() if word in file), None)


def native_loaders(graph: dict) -> dict:
    """Loaders of that family; none for FLUX.1-dev and SDXL."""
    family = family_of(graph)
    kinds = {"UNETLoader": 0, "CLIPLoader": 1, "DualCLIPLoader": 1, "VAELoader": 2}
    return (
        {}
        if family is None
        else {kind: ("RelateTestNative", {"family": family, "part": part}) for kind, part in kinds.items()}
    )


def lacking(graph: dict, info: dict) -> list[str]:
    """Nodes and choices of a graph that a ComfyUI has not, by its ``object_info``."""
    missing = [node["class_type"] for node in graph.values() if node["class_type"] not in info]
    for node in graph.values():
        spec = info.get(node["class_type"], {}).get("input", {})
        for name, value in node["inputs"].items():
            kind = next((part[name] for part in spec.values() if isinstance(part, dict) and name in part), [""])
            choices = kind[0] if isinstance(kind[0], list) else (kind[1] if len(kind) > 1 else {}).get("options")
            if isinstance(value, str) and choices and isinstance(choices[0], str) and value not in choices:
                missing.append(f"{node['class_type']}.{name} = {value}")
    return missing


def node(class_type: str, /, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def two_subjects(image: str = "subject.png", prompt: str = "a corgi hugging a fox", seed: int = 1) -> dict:
    """Two photographs, a relation LoRA, a small canvas: every node of the first journey, ids that say what they are."""
    return {
        "base": node("RelateTestCheckpoint", kind="sdxl", weights_seed=1),
        "vision": node("RelateTestClipVision", weights_seed=4),
        "photo": node("LoadImage", image=image),
        "corgi": node("RelateSubject", image=["photo", 0], name="corgi", x0=0.0, y0=0.1, x1=0.5, y1=0.9, weight=1.0),
        "fox": node(
            "RelateSubject", image=["photo", 0], name="fox", x0=0.5, y0=0.1, x1=1.0, y1=0.9, weight=1.0,
            scene=["corgi", 0],
        ),
        "identity_model": node("RelateIdentityModelLoader", model_name="ms_adapter.bin"),
        "encode": node(
            "RelateEncodeIdentity", scene=["fox", 0], identity_model=["identity_model", 0], clip=["base", 1],
            clip_vision=["vision", 0], local_grid=4, ground_with="name and box",
        ),
        "relation": node(
            "RelateRelationLoader", model=["base", 0], lora_name="relation_kohya.safetensors", strength=1.0
        ),
        "apply": node(
            "RelateApplyIdentity", model=["relation", 0], identity=["encode", 0], weight=0.6, start_at=0.0, end_at=1.0,
            layout="boxes",
        ),
        "positive": node("CLIPTextEncode", clip=["base", 1], text=prompt),
        "negative": node("CLIPTextEncode", clip=["base", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=192, height=128, batch_size=1),
        "sample": node(
            "KSampler", model=["apply", 0], seed=seed, steps=2, cfg=5.0, sampler_name="euler", scheduler="normal",
            positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0], denoise=1.0,
        ),
        "digest": node("RelateTestDigest", samples=["sample", 0]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["base", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="relate"),
    }  # fmt: skip


def without(graph: dict, *ids: str, **links: list) -> dict:
    """A graph with nodes removed and inputs `node__input=link` set."""
    graph = {
        node_id: {**value, "inputs": dict(value["inputs"])} for node_id, value in graph.items() if node_id not in ids
    }
    for place, link in links.items():
        node_id, name = place.split("__")
        graph[node_id]["inputs"][name] = link
    return graph
