"""A real ComfyUI in two ways: imported into this process (`comfy`, `pack`, `tiny`) and as a server (`comfy_server`).

Two worlds never meet: unit tests say `core...`; here the pack is what ComfyUI loaded, under the name ComfyUI gave it.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.host import api_graphs, flux_studio, synthetic
from tests.host.comfyui import find_comfyui
from tests.host.pictures import photograph, png
from tests.host.scene_studio import SceneStudio
from tests.host.server import ComfyServer, device_flags
from tests.host.studio import Pack, Studio

ROOT = Path(__file__).resolve().parents[2]
MINIWORLD_RELATION = ROOT / "models" / "miniworld" / "relations" / "miniworld_hugging.safetensors"
TEST_PACK = Path(__file__).parent / "test_pack"
# A dot and a hyphen: names that users' folders have and Python's modules cannot.
PACK_FOLDER = "ComfyUI-Relate-v1.0"


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's folders for this session: models from `synthetic.py`, one photograph, nothing of the user's."""
    base = tmp_path_factory.mktemp("comfyui")
    synthetic.save_models(base / "models")
    flux_studio.save_files(base / "models")
    (base / "input").mkdir()
    (base / "input" / "subject.png").write_bytes(png(photograph(96, 64)))
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / PACK_FOLDER).symlink_to(ROOT, target_is_directory=True)
    (base / "custom_nodes" / "relate-test-pack").symlink_to(TEST_PACK, target_is_directory=True)
    return base


@pytest.fixture(scope="session")
def comfy(base_directory: Path) -> ModuleType:
    """ComfyUI's `nodes` module in this process, on CPU when there is no GPU, reading `base_directory` only."""
    torch.set_num_threads(
        1
    )  # on tensors this small threads only wait for each other: 20 times slower on a busy machine
    comfyui = str(find_comfyui())
    sys.path.insert(0, comfyui)
    options = importlib.import_module("comfy.cli_args").args
    options.cpu = not torch.cuda.is_available()
    options.base_directory = str(base_directory)
    nodes = importlib.import_module("nodes")
    if not nodes.__file__.startswith(comfyui):
        raise RuntimeError(
            f"`import nodes` found {nodes.__file__}, expected ComfyUI's: some test imported ours by name"
        )
    return nodes


def _load(comfy: ModuleType, folder: Path) -> Pack:
    """Load a pack exactly as ComfyUI does, and keep what it logs."""
    before = set(comfy.NODE_CLASS_MAPPINGS)
    records, handler = [], logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        asyncio.run(comfy.load_custom_node(str(folder)))
    finally:
        logging.getLogger().removeHandler(handler)
    added = {name: kind for name, kind in comfy.NODE_CLASS_MAPPINGS.items() if name not in before}
    return Pack(str(folder).replace(".", "_x_"), added, "\n".join(record.getMessage() for record in records))


@pytest.fixture(scope="session")
def pack(comfy: ModuleType, base_directory: Path) -> Pack:
    """Our pack, loaded by path under a folder name with a dot and a hyphen."""
    return _load(comfy, base_directory / "custom_nodes" / PACK_FOLDER)


@pytest.fixture(scope="session")
def tiny(comfy: ModuleType, base_directory: Path) -> ModuleType:
    """Builders of tiny models: `tiny.model()`, `.clip()`, `.vae()`, `.clip_vision()`, `.controlnet()`."""
    return _load(comfy, base_directory / "custom_nodes" / "relate-test-pack").module("tiny")


@pytest.fixture(scope="session")
def tiny_sdxl(tiny: ModuleType) -> SimpleNamespace:
    """One tiny SDXL of 8 cross-attentions for the session. Nobody may change it: patch a clone."""
    with torch.inference_mode():
        return SimpleNamespace(
            model=tiny.model("small"), clip=tiny.clip(), vae=tiny.vae(), clip_vision=tiny.clip_vision()
        )


@pytest.fixture(scope="session")
def studio(pack: Pack, comfy: ModuleType, tiny_sdxl: SimpleNamespace) -> Studio:
    """Our nodes and ComfyUI's on the tiny SDXL, in this process."""
    return Studio(pack, comfy, tiny_sdxl)


@pytest.fixture(scope="session")
def scenes(pack: Pack, comfy: ModuleType, tiny: ModuleType) -> SceneStudio:
    """Our nodes and ComfyUI's on tiny models of every family that takes references, in this process."""
    return SceneStudio(pack, comfy, importlib.import_module(f"{tiny.__package__}.native"), {})


@pytest.fixture(scope="session")
def comfy_server(base_directory: Path):
    """A running ComfyUI with our pack and the test pack."""
    with ComfyServer(find_comfyui(), base_directory, {}, device_flags()) as server:
        yield server


@pytest.fixture
def graph() -> dict:
    """The two-subject graph on tiny models."""
    return api_graphs.two_subjects()
