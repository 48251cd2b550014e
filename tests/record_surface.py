"""Record the parts of the stable surface that follow the shipped weights: python -m tests.record_surface PART ...

models     the keys, types and shapes of every file in models/miniworld, once new weights are there
pictures   what the miniworld's graphs draw on the ComfyUI of COMFYUI_PATH, one thread; take the oldest supported one
commands   options that came since, so that they cannot go again
nodes      nodes and sockets that came since, as the ComfyUI of COMFYUI_PATH sees them

Nothing else of `tests/golden/stable_surface.json` changes. Pictures and models are recorded anew in the commit that
ships other weights and in no other; look at every picture first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.surface import COMMANDS, GOLDEN, ROOT, content_of, digest_of, options_of, parser_of

MINIWORLD = ROOT / "models" / "miniworld"


def models() -> dict:
    """Every JSON and safetensors of models/miniworld by its name; the tokenizer is left out."""
    paths = sorted(path for ending in ("json", "safetensors") for path in MINIWORLD.rglob(f"*.{ending}"))
    found = {}
    for path in (path for path in paths if path.parent.name != "tokenizer"):
        content = content_of(path)
        name = path.relative_to(MINIWORLD).as_posix()
        found[name] = digest_of(content) if path.suffix == ".safetensors" else content
    return found


@contextmanager
def comfyui_with_the_pack():
    """Start the ComfyUI of COMFYUI_PATH with nothing but this pack."""
    from tests.host.comfyui import find_comfyui
    from tests.host.server import ComfyServer, device_flags

    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit("expected a ComfyUI, found none; set COMFYUI_PATH to its folder.")
    with tempfile.TemporaryDirectory() as base:
        with ComfyServer(comfyui, Path(base), {ROOT.name: ROOT}, device_flags()) as server:
            yield server


def pictures() -> dict:
    """Fingerprints of every graph that needs nothing but the pack."""
    from tests.host.api_graphs import lacking, saving, shipped_miniworld
    from tests.host.comfyui import version
    from tests.host.test_stable_surface import fingerprint

    os.environ["OMP_NUM_THREADS"] = "1"
    graphs = {}
    with comfyui_with_the_pack() as server:
        for path in shipped_miniworld():
            graph = json.loads(path.read_text(encoding="utf-8"))
            if missing := lacking(graph, server.object_info()):
                print(f"{path.stem}: not recorded, it needs {', '.join(missing)}")
                continue
            run = server.run(graph)
            if run.status != "success":
                raise SystemExit(f"{path.stem}: {run.status}. {run.error}")
            digest, tiles = fingerprint(server.images(run, saving(graph))[0])
            graphs[path.stem] = {"sha256": digest, "tiles": tiles.tobytes().hex()}
    return {
        "recorded with": f"ComfyUI {version(server.comfyui)}, one thread",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "graphs": graphs,
    }


def commands() -> dict:
    """Options of every command."""
    with pytest.MonkeyPatch.context() as patch:
        return {name: options_of(parser_of(name, patch)) for name in COMMANDS}


def nodes() -> dict:
    """Sockets and widgets of every node of the pack."""
    from tests.host.test_stable_surface import sockets

    with comfyui_with_the_pack() as server:
        served = server.object_info()
    pack = {name: info for name, info in served.items() if info["python_module"] == f"custom_nodes.{ROOT.name}"}
    return {
        name: sockets(
            SimpleNamespace(
                INPUT_TYPES=lambda info=info: info["input"],
                RETURN_TYPES=info["output"],
                RETURN_NAMES=info["output_name"],
            )
        )
        for name, info in sorted(pack.items())
    }


def with_new(recorded: object, now: object) -> object:
    """What was recorded, and the keys that came since."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        return {
            key: with_new(recorded.get(key, now[key]), now.get(key, recorded.get(key))) for key in {**recorded, **now}
        }
    return recorded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("models", "pictures", "commands", "nodes"))
    surface = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for part in parser.parse_args().parts:
        if part in ("commands", "nodes"):
            surface[part] = with_new(surface[part], {"commands": commands, "nodes": nodes}[part]())
        else:
            surface[part] = {"models": models, "pictures": pictures}[part]()
    GOLDEN.write_text(json.dumps(surface, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
