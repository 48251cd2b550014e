"""Whether one server stays as large as it is: python -m tests.bench.server_memory [--prompts 100] [--cache classic]

A ComfyUI is started and given prompt after prompt, each with another mask, another box and every third one with another
photograph: what a user does who moves things about. After each its resident memory is read. Goal: from the tenth prompt
to the last less than 1 % more, and the model without our nodes draws the same bits as before the first. `--plain` runs
the same without our nodes, for comparison: ComfyUI 0.33 keeps what nodes put out until memory is short (its default
cache), so there only `--cache classic` shows what somebody else keeps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.host import synthetic
from tests.host.api_graphs import node, two_subjects, without
from tests.host.comfyui import find_comfyui, version
from tests.host.pictures import photograph, png
from tests.host.server import ComfyServer, device_flags

ROOT = Path(__file__).resolve().parents[2]
OURS = ("corgi", "fox", "identity_model", "encode", "relation", "apply", "vision")
SIDE = 768  # of a photograph; a tensor of one takes 7 MB, its mask 2.4
EVERY = 3  # prompts with the same photograph
SETTLED = 10  # prompts after which nothing more may be added
GOAL = 0.01


def graph_of(number: int, picture: str, plain: bool = False) -> dict:
    """The prompt of this number: its own mask, cut from the photograph and grown, and its own boxes."""
    graph = two_subjects(picture, seed=number)
    graph["shape"] = node("ImageToMask", image=["photo", 0], channel="red")
    graph["mask"] = node("GrowMask", mask=["shape", 0], expand=number % 41 - 20, tapered_corners=bool(number % 2))
    if plain:
        graph = without(graph, *OURS, sample__model=["base", 0])
        graph["shown"] = node("MaskToImage", mask=["mask", 0])
        return {**graph, "preview": node("PreviewImage", images=["shown", 0])}
    edge = 0.3 + 0.4 * (number % 37) / 37
    graph["corgi"]["inputs"] |= {"x1": edge, "mask": ["mask", 0]}
    graph["fox"]["inputs"] |= {"x0": edge}
    return graph


def resident(process: int) -> float:
    """MiB of a process."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def drawn(server: ComfyServer, graph: dict) -> str:
    """Digest of a graph's latent.

    Raises:
        RuntimeError: it did not run.
    """
    run = server.run(graph)
    if run.status != "success":
        raise RuntimeError(f"{run.status}: {run.error}")
    return run.outputs["digest"]["digest"][0]


def measure(server: ComfyServer, prompts: int, plain: bool) -> Iterator[float]:
    """Resident memory after each prompt."""
    picture = ""
    for number in range(prompts):
        if number % EVERY == 0:
            picture = server.upload(f"photograph_{number}.png", png(photograph(SIDE, SIDE, seed=number)))
        drawn(server, graph_of(number, picture, plain))
        yield resident(server.process.pid)
        sys.stderr.write(f"\r  prompt {number + 1} of {prompts}   ")
    sys.stderr.write("\r" + " " * 30 + "\r")


def grown(sizes: list[float]) -> float:
    """Growth from the tenth prompt to the end: medians of as many prompts after the one and before the other."""
    span = max(1, (len(sizes) - SETTLED) // 9)
    before = statistics.median(sizes[SETTLED : SETTLED + span])
    return statistics.median(sizes[-span:]) / before - 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--prompts", type=int, default=100)
    options.add_argument("--cache", choices=("default", "classic", "none"), default="classic")
    options.add_argument("--plain", action="store_true", help="without our nodes")
    chosen = options.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder.")
    flags = () if chosen.cache == "default" else (f"--cache-{chosen.cache}",)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        synthetic.save_models(base / "models")
        packs = {"ComfyUI-Relate": ROOT, "relate-test-pack": ROOT / "tests" / "host" / "test_pack"}
        with ComfyServer(comfyui, base, packs, (*device_flags(), *flags)) as server:
            picture = server.upload("first.png", png(photograph(96, 64)))
            bare = without(two_subjects(picture), *OURS, "photo", sample__model=["base", 0])
            before = drawn(server, bare)
            sizes = list(measure(server, chosen.prompts, chosen.plain))
            again = {**bare, "once more": node("PreviewImage", images=["decode", 0])}
            server.free()  # so that the model is loaded anew and nothing comes from the cache
            same = drawn(server, again) == before
    growth = grown(sizes)
    sys.stdout.write(
        f"ComfyUI {version(comfyui)}, {'without' if chosen.plain else 'with'} our nodes, cache {chosen.cache}: "
        f"{sizes[0]:.0f} MiB after the first prompt, {sizes[min(SETTLED, len(sizes)) - 1]:.0f} after the tenth, "
        f"{sizes[-1]:.0f} after the last of {len(sizes)}; {100 * growth:+.2f} % from the tenth on (goal: below 1 %). "
        f"The plain model afterwards: {'the same bits' if same else 'OTHER BITS'}.\n"
    )
    return 0 if growth < GOAL and same else 1


if __name__ == "__main__":
    raise SystemExit(main())
