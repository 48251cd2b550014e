"""The stable surface that ComfyUI sees: nodes with their sockets and widgets, and the pictures of saved graphs."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.api_graphs import saving
from tests.host.comfyui import find_comfyui, version
from tests.surface import ROOT, lost, pinned

TILE = 32  # pixels; rounding moves single pixels, a changed computation moves the mean of many
TILE_TOLERANCE = 3  # of 255


def sockets(node) -> dict:
    """Inputs by name with what a saved graph relies on, the widgets in the order the page keeps their values."""
    told = node.INPUT_TYPES()
    inputs, widgets = {}, []
    for group in ("required", "optional"):
        for name, (kind, options) in ((name, (*value, {})[:2]) for name, value in told.get(group, {}).items()):
            choices = kind if isinstance(kind, list) else options.get("options")
            kind = "COMBO" if isinstance(kind, list) else kind
            inputs[name] = {"type": kind, "optional": group == "optional", "default": options.get("default")}
            if name in pinned("closed choices"):
                inputs[name]["choices"] = {choice: True for choice in choices}
            if kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or "," in kind:
                widgets.append(name)
    return {
        "inputs": inputs,
        "widgets": widgets,
        "outputs": list(node.RETURN_TYPES),
        "output names": list(node.RETURN_NAMES),
    }


@pytest.mark.parametrize("node_id", pinned("nodes"))
def test_nodes_keep_their_sockets_and_widgets(pack, node_id):
    """Sockets may be added if they are optional or have a default; widgets at the end only."""
    recorded, now = pinned("nodes")[node_id], sockets(pack.nodes[node_id])
    assert lost(recorded, now) == []
    added = {name: entry for name, entry in now["inputs"].items() if name not in recorded["inputs"]}
    assert [name for name, entry in added.items() if not entry["optional"] and entry["default"] is None] == []


def fingerprint(picture: bytes) -> tuple[str, np.ndarray]:
    """SHA-256 of the pixels, and the mean colour of every tile."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    rows, columns = (size // TILE for size in pixels.shape[:2])
    tiles = pixels.reshape(rows, TILE, columns, TILE, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return hashlib.sha256(pixels.tobytes()).hexdigest(), tiles


@pytest.mark.parametrize("name", pinned("pictures")["graphs"])
def test_the_miniworlds_graphs_draw_the_pictures_they_drew(comfy, comfy_server, name):
    """Bit for bit where the processor rounds as the recording one, Flux on the recording ComfyUI only; else to the eye.

    ComfyUI 0.33.0 rounds Flux's steps another way than 0.3.64: single values differ by 1 of 255.
    """
    record = pinned("pictures")
    graph = json.loads((ROOT / "tests" / "host" / "graphs" / f"{name}.json").read_text(encoding="utf-8"))
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    digest, tiles = fingerprint(comfy_server.images(run, saving(graph))[0])
    alike = not torch.cuda.is_available() and torch.backends.cpu.get_cpu_capability() == record["processor"]
    flux = any(node["class_type"] == "RelateMiniworldFluxLoader" for node in graph.values())
    if alike and (not flux or f"ComfyUI {version(find_comfyui())}," in record["recorded with"]):
        assert digest == record["graphs"][name]["sha256"]
    expected = np.frombuffer(bytes.fromhex(record["graphs"][name]["tiles"]), np.uint8).reshape(tiles.shape)
    assert np.abs(tiles.astype(int) - expected.astype(int)).max() <= TILE_TOLERANCE
