"""Orders, templates and a server that draws coloured squares, for the tests of this folder."""

from __future__ import annotations

import io
import json

from PIL import Image

from tests.fake_comfyui import FakeComfyUI
from training.common.comfyui_client import ComfyUIClient, Patience, graph_hash
from training.generation.engines.comfyui import ComfyUIEngine
from training.generation.request import EDIT, PANELS, TEXT
from training.generation.rounds import Order, Verdicts
from training.generation.wording import read_wording

QUICK = Patience(request_seconds=2, absent_seconds=5, run_seconds=0.5, poll_seconds=0.02, attempts=3)
WORDS = read_wording("")


def node(class_type, title="", **inputs):
    return {"class_type": class_type, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def text_graph():
    return {
        "1": node("CLIPTextEncode", "relate:prompt", text=""),
        "2": node("EmptyLatentImage", "relate:width relate:height", width=8, height=8),
        "3": node("KSampler", "relate:seed", seed=0, positive=["1", 0], latent_image=["2", 0]),
        "4": node("SaveImage", "relate:output", images=["3", 0]),
    }


def edit_graph():
    """A place for a second picture behind an optional input."""
    return {
        **text_graph(),
        "5": node("LoadImage", "relate:image1", image=""),
        "6": node("LoadImage", "relate:image2", image=""),
        "7": node("VAEEncode", pixels=["6", 0]),
        "1": node("TextEncodePictures", "relate:prompt", text="", image1=["5", 0], image2=["7", 0]),
    }


INFO = {
    "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"]}}},
    "TextEncodePictures": {"input": {"required": {"text": ["STRING"]}, "optional": {"image1": ["IMAGE"]}}},
    "LoadImage": {"input": {"required": {"image": [["a.png"]]}}},
}


def write(path, graph):
    path.write_text(json.dumps(graph), encoding="utf-8")
    return str(path)


def square(graph) -> bytes:
    """A picture that depends on the graph."""
    file = io.BytesIO()
    colour = tuple(bytes.fromhex(graph_hash(graph)[:6]))
    Image.new("RGB", (32, 32), colour).save(file, format="PNG")
    return file.getvalue()


def fake_server(script=()):
    server = FakeComfyUI(picture=square, script=script)
    server.nodes = (*server.nodes, "CLIPTextEncode", "EmptyLatentImage", "VAEEncode", "TextEncodePictures")
    server.info = INFO
    return server


def engine_of(server, folder, **changes):
    """An engine on the server with the templates of this file; `lines` is what it has said."""
    lines = []
    client = ComfyUIClient(server.url, Patience(**{**vars(QUICK), **changes}), say=lines.append)
    files = {TEXT: write(folder / "text.json", text_graph()), EDIT: write(folder / "edit.json", edit_graph())}
    engine = ComfyUIEngine(client, {**files, PANELS: files[TEXT]})
    engine.lines = lines
    return engine


def order_of(**changes):
    asked = {
        "relation": "hugging",
        "groups": [("wolf", "owl"), ("bear", "tiger")],
        "count": 1,
        "tries": 2,
        "seed": 0,
        "size": 64,
        "recipe": "target-first",
        "words": WORDS,
    }
    return Order(**{**asked, **changes})


def accepting(raw, out):
    """An annotation that likes everything."""
    return Verdicts(frozenset(path.name for path in raw.iterdir()), {})
