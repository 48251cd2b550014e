"""What the pack adds to ComfyUI's start: python -m tests.bench.startup [--rounds 5]

Each round is a fresh process that imports ComfyUI's nodes first and then times ComfyUI's own loader on the pack:
import, entry point and every schema. Goal: at most 0.05 s on a machine that does nothing else; there the time that
passes and the processor's are the same. On a busy one only the processor's says anything.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.hosts import ROOT
from tests.host.comfyui import find_comfyui, version

CHILD = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[1])
import torch, comfy.cli_args
comfy.cli_args.args.cpu = not torch.cuda.is_available()
import nodes, comfy_api.latest, comfy.sd
import comfy_config.config_parser  # ComfyUI's own, imported for the first pack whichever it is
start, worked = time.perf_counter(), time.process_time()
loaded = asyncio.run(nodes.load_custom_node(sys.argv[2]))
seconds, worked = time.perf_counter() - start, time.process_time() - worked
count = sum(name.startswith("Relate") for name in nodes.NODE_CLASS_MAPPINGS)
sys.exit("the pack did not load") if not (loaded and count) else print(seconds, worked, count)
"""


def start(comfyui: Path) -> tuple[float, float, int]:
    """Seconds that passed, seconds of the processor, and nodes of one start."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(comfyui), str(ROOT)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    seconds, worked, count = child.stdout.split()[-3:]
    return float(seconds), float(worked), int(count)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    comfyui = find_comfyui()
    if comfyui is None:
        sys.exit("No ComfyUI here: set COMFYUI_PATH to its folder.")
    rounds = [start(comfyui) for _ in range(chosen.rounds)]
    passed, worked, counts = zip(*rounds)
    sys.stdout.write(
        f"{counts[0]} nodes on ComfyUI {version(comfyui)}: median {statistics.median(passed):.3f} s, "
        f"least {min(passed):.3f}, most {max(passed):.3f}; the processor's own median "
        f"{statistics.median(worked):.3f} s, least {min(worked):.3f}; over {len(rounds)} starts\n"
    )


if __name__ == "__main__":
    main()
