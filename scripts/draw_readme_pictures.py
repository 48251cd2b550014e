"""Draw the README's pictures with the shipped models: COMFYUI_PATH=... python scripts/draw_readme_pictures.py

docs/hug.jpg                    two reference pictures, and the hug that miniworld_two_subjects_relation draws of them
training/miniworld/routing.jpg  two reference pictures, what miniworld_dreamo_routing draws, and where each acted

The graphs are run as they are shipped, seeds too; ``--hug-seed`` and ``--routing-seed`` try others first.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.host.comfyui import find_comfyui  # noqa: E402
from tests.host.server import ComfyServer, device_flags  # noqa: E402

GRAPHS, CREATURES = ROOT / "tests" / "host" / "graphs", ROOT / "models" / "miniworld" / "creatures"
SIDE, GAP = 176, 6
QUALITY = 80


def of(graph: dict, kind: str) -> list[str]:
    """Ids of a graph's nodes of a class."""
    return [key for key, node in graph.items() if node["class_type"] == kind]


def strip(pictures: list[Image.Image], path: Path) -> None:
    """Pictures side by side on white."""
    sheet = Image.new("RGB", (len(pictures) * (SIDE + GAP) - GAP, SIDE), (255, 255, 255))
    for index, picture in enumerate(pictures):
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (index * (SIDE + GAP), 0))
    sheet.save(path, "JPEG", quality=QUALITY, optimize=True)
    print(path.relative_to(ROOT), path.stat().st_size)


def drawn(server: ComfyServer, name: str, kinds: tuple[str, ...], seed: int | None) -> list[Image.Image]:
    """Return the references of a graph, then what its nodes of these classes showed, in the order of the graph."""
    graph = json.loads((GRAPHS / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if seed is not None and "seed" in node["inputs"]:
            node["inputs"]["seed"] = seed
    run = server.run(graph)
    if run.status != "success":
        raise SystemExit(f"{name}: {run.status}. {run.error}")
    creatures = [CREATURES / f"{graph[key]['inputs']['creature']}.png" for key in of(graph, "RelateMiniworldCreature")]
    shown = [key for kind in kinds for key in of(graph, kind) if "What the model" not in graph[key]["_meta"]["title"]]
    pictures = [io.BytesIO(server.images(run, [key])[0]) for key in shown]
    return [Image.open(picture).convert("RGB") for picture in (*creatures, *pictures)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hug-seed", type=int)
    parser.add_argument("--routing-seed", type=int)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as base:
        with ComfyServer(find_comfyui(), Path(base), {ROOT.name: ROOT}, device_flags()) as server:
            strip(
                drawn(server, "miniworld_two_subjects_relation", ("SaveImage",), args.hug_seed), ROOT / "docs/hug.jpg"
            )
            routed = drawn(server, "miniworld_dreamo_routing", ("SaveImage", "PreviewImage"), args.routing_seed)
            strip(routed, ROOT / "training/miniworld/routing.jpg")


if __name__ == "__main__":
    main()
