"""What the pack adds to ComfyUI's start: python -m tests.bench.startup [--rounds 5]

Each round is a fresh process that imports ComfyUI's nodes first and then times ComfyUI's own loader on the pack:
import, entry point and every schema. Goal: at most 0.05 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from tests.bench.hosts import ROOT
from tests.host.comfyui import find_comfyui

CHILD = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
import torch, comfy.cli_args
comfy.cli_args.args.cpu = not torch.cuda.is_available()
import nodes, comfy_api.latest, comfy.sd
import comfy_config.config_parser  # ComfyUI's own, imported for the first pack whichever it is
start = time.perf_counter()
loaded = asyncio.run(nodes.load_custom_node(sys.argv[2]))
seconds = time.perf_counter() - start
count = sum(name.startswith("Relate") for name in nodes.NODE_CLASS_MAPPINGS)
sys.exit("the pack did not load") if not (loaded and count) else print(seconds, count)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder.")
    seconds, count = [], "0"
    for _ in range(chosen.rounds):
        child = subprocess.run([sys.executable, "-c", CHILD, str(comfyui), str(ROOT)], check=True, text=True,
                               stdout=subprocess.PIPE)
        spent, count = child.stdout.split()[-2:]
        seconds.append(float(spent))
    sys.stdout.write(f"{count} nodes: median {statistics.median(seconds):.3f} s, least {min(seconds):.3f}, most "
                     f"{max(seconds):.3f}, over {len(seconds)} starts\n")


if __name__ == "__main__":
    main()
