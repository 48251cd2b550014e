"""How the pack meets ComfyUI: its name, its folders, its groups of nodes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.host.conftest import MINIWORLD_RELATION, ROOT


def test_the_pack_is_loaded_under_its_path_and_imports_nothing_by_name(pack, comfy):
    """Two worlds: ComfyUI's `nodes` keeps its name, ours lives under the folder's."""
    assert sys.modules["nodes"] is comfy and comfy.__file__.endswith("nodes.py")
    assert pack.module("nodes").__file__.endswith(os.path.join("nodes", "__init__.py"))
    assert pack.module("core.scene").Box.__module__.startswith(pack.name)


def test_a_broken_group_leaves_the_others_and_says_why(pack, monkeypatch, caplog):
    nodes = pack.module("nodes")
    monkeypatch.setattr(nodes, "GROUPS", {"absent": ("RelateNowhere",), **nodes.GROUPS})
    found = asyncio.run(nodes.RelateExtension().get_node_list())
    assert {node.GET_SCHEMA().node_id for node in found} >= set(pack.nodes)
    assert "RelateNowhere" in caplog.text and "No module named" in caplog.text


def test_files_are_found_in_models_relate_and_in_the_users_own_folders(pack, comfy, monkeypatch, tmp_path):
    import folder_paths

    (tmp_path / "mine.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no model")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "relate", ([str(tmp_path)], set()))  # as the YAML adds it
    folder_paths.filename_list_cache.pop("relate", None)
    folders = pack.module("nodes.host_comfy.folders")
    folders.register()
    names = folders.identity_files()
    folder_paths.filename_list_cache.pop("relate", None)
    assert "mine.safetensors" in names and "ms_adapter.bin" in names and "notes.txt" not in names


def test_a_lora_that_may_not_be_read_leaves_load_relation_standing(pack, comfy, monkeypatch, tmp_path):
    import folder_paths

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "closed.safetensors").write_bytes(b"x")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setitem(folder_paths.filename_list_cache, "loras", None)
    folder_paths.filename_list_cache.pop("loras")
    monkeypatch.setattr(pack.module("core.checkpoint"), "kind_of", closed)
    assert pack.module("nodes.host_comfy.folders").relation_files() == (["closed.safetensors"], {})


def test_registering_twice_lists_a_folder_once(pack, comfy):
    import folder_paths

    for _ in range(2):
        pack.module("nodes.host_comfy.folders").register()
    paths, endings = folder_paths.folder_names_and_paths["relate"]
    assert len(paths) == len(set(paths)) and ".safetensors" in endings
    loras = folder_paths.get_folder_paths("loras")
    assert len(loras) == len(set(loras)) and loras[-1] == str(MINIWORLD_RELATION.parent)  # after the user's own


def test_loading_imports_nothing_heavy(comfy):
    """Asked of a fresh process: what the pack's own loading adds to ComfyUI's modules."""
    code = (
        "import sys; import comfy.options; from comfy.cli_args import args; args.cpu = True; import nodes, asyncio;"
        f"before = set(sys.modules); asyncio.run(nodes.load_custom_node({str(ROOT)!r}));"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before if not name.startswith('/')}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(comfy.__file__).parent,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    added = set(result.stdout.split())
    assert not added & {"diffusers", "peft", "accelerate", "open_clip", "cv2", "pandas", "matplotlib"}, added
