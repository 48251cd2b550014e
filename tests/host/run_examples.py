"""The miniworld's example graphs through ComfyUI: python -m tests.host.run_examples --out out/demo/comfyui

Starts the ComfyUI of this machine (COMFYUI_PATH, or comfy-cli's default workspace) with this pack and folders of its
own, runs workflows/miniworld_*.json as shipped, and keeps their pictures. The models come with the pack; a graph whose
adapter you train first is left out, with a word, until its file is there. Exit code 0 when every other graph gave its
picture.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from pathlib import Path

from PIL import Image

from tests.host.api_graphs import lacking, saving, shipped_miniworld
from tests.host.comfyui import find_comfyui, why_not
from tests.host.server import ComfyServer, device_flags
from training.common.atomic_io import atomic_write
from training.common.cli import TrainingAborted, command, say

ROOT = Path(__file__).resolve().parents[2]
JPEG_QUALITY = 88


def run_examples(out: Path, thumbnails: bool) -> None:
    """Run every graph, one picture each.

    Args:
        out: receives `<graph>.png`.
        thumbnails: write each picture to `workflows/<graph>.jpg` too.

    Raises:
        TrainingAborted: there is no ComfyUI that could start, or a graph failed.
    """
    if reason := why_not().get("host"):
        raise TrainingAborted(f"The example graphs were not run. {reason}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # on models this small threads only wait for each other
    failed = []
    with tempfile.TemporaryDirectory() as base:
        with ComfyServer(find_comfyui(), Path(base), {ROOT.name: ROOT}, device_flags()) as server:
            for path in shipped_miniworld():
                if missing := lacking(json.loads(path.read_text(encoding="utf-8")), server.object_info()):
                    say(f"{path.stem}: left out, it needs {', '.join(missing)}; the graph's note says how to make it")
                    continue
                picture = run_one(server, path)
                if picture is None:
                    failed.append(path.stem)
                    continue
                atomic_write(out / f"{path.stem}.png", lambda place, png=picture: place.write_bytes(png))
                if thumbnails:
                    atomic_write(
                        ROOT / "workflows" / f"{path.stem}.jpg", lambda place, png=picture: to_jpeg(png, place)
                    )
    if failed:
        raise TrainingAborted(f"{len(failed)} of {len(shipped_miniworld())} graphs failed: {', '.join(failed)}")
    say(f"Pictures: {out}")


def run_one(server: ComfyServer, path: Path) -> bytes | None:
    """The PNG a graph saved, or None when it failed; says which, and how long it took."""
    graph = json.loads(path.read_text(encoding="utf-8"))
    run = server.run(graph)
    if run.status != "success":
        say(f"{path.stem}: {run.status}. {run.error}")
        return None
    say(f"{path.stem}: {run.seconds:.1f} s")
    return server.images(run, saving(graph))[0]


def to_jpeg(png: bytes, path: Path) -> None:
    """The same picture as a small JPEG."""
    Image.open(io.BytesIO(png)).convert("RGB").save(path, "JPEG", quality=JPEG_QUALITY, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.host.run_examples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--thumbnails", action="store_true", help="also renew workflows/miniworld_*.jpg with them")
    args = parser.parse_args()
    return command(lambda: run_examples(args.out, args.thumbnails))


if __name__ == "__main__":
    raise SystemExit(main())
