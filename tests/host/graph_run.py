"""Run an API graph in this process, as far as texts, conditionings and one sampler go, with the graph known as running.

Where the prompt is read from the running graph, the graph and what was encoded must be one; so a test writes the graph
only, and the conditionings are made by executing ComfyUI's own nodes along it.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import torch

TEXT_NODES = {
    "PrimitiveString": "primitive", "PrimitiveStringMultiline": "primitive", "StringConcatenate": "string",
    "StringTrim": "string", "StringReplace": "string", "CaseConverter": "string", "CLIPTextEncodeSDXL": "clip_sdxl",
    "CFGGuider": "custom_sampler",
}  # fmt: skip


class GraphRun:
    """A graph and what its nodes give; ``clip`` and ``model`` stand for loaders, links to them are ["clip", 0]."""

    def __init__(self, comfy, graph: dict, clip, model, monkeypatch) -> None:
        self.comfy, self.graph, self.given = comfy, graph, {"clip": clip, "model": model}
        self.results: dict[str, tuple] = {}
        self.context = SimpleNamespace(prompt_id="test", node_id="", list_index=0)
        for kind, module in TEXT_NODES.items():
            found = importlib.import_module(f"comfy_extras.nodes_{module}")
            classes = [each for each in vars(found).values() if isinstance(each, type)]
            node = next((each for each in classes if _id(each) == kind), None) or getattr(found, kind)
            monkeypatch.setitem(comfy.NODE_CLASS_MAPPINGS, kind, node)

    def value(self, link):
        """What an input holds: a widget's value, or an output."""
        if not (isinstance(link, list) and len(link) == 2 and isinstance(link[0], str)):
            return link
        if link[0] in self.given:
            return self.given[link[0]]
        return self.outputs(link[0])[link[1]]

    def outputs(self, node_id: str) -> tuple:
        if node_id not in self.results:
            node = self.graph[node_id]
            kind = self.comfy.NODE_CLASS_MAPPINGS[node["class_type"]]
            inputs = {name: self.value(given) for name, given in node["inputs"].items()}
            waiting, self.context.node_id = self.context.node_id, node_id
            with torch.inference_mode():
                if hasattr(kind, "execute"):
                    self.results[node_id] = kind.execute(**inputs).result
                else:
                    self.results[node_id] = getattr(kind(), kind.FUNCTION)(**inputs)
            self.context.node_id = waiting
        return self.results[node_id]

    def running(self, pack, monkeypatch, node_id: str) -> None:
        """Let the pack believe that a node of the graph is running."""
        module = pack.module("nodes.host_comfy.prompt_graph")
        self.context.node_id = node_id
        monkeypatch.setattr(module, "get_executing_context", lambda: self.context)
        monkeypatch.setattr(module, "_running_graph", lambda prompt_id: self.graph)


def _id(kind: type) -> str | None:
    try:
        return kind.define_schema().node_id if "define_schema" in vars(kind) else None
    except (AttributeError, TypeError):
        return None


def encode(text) -> dict:
    return {"class_type": "CLIPTextEncode", "inputs": {"clip": ["clip", 0], "text": text}}


def sampler(positive: str, negative: str = "negative", model: str = "model") -> dict:
    """A KSampler of two steps; its positive is the first output of a node."""
    return {"class_type": "KSampler", "inputs": {
        "model": [model, 0], "positive": [positive, 0], "negative": [negative, 0], "seed": 1, "steps": 2, "cfg": 3.0,
        "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "latent_image": {"samples": torch.zeros(1, 4, 16, 24)}}}  # fmt: skip
