"""How many latent channels: autoencoders of 4, 8 and 16 trained alike, compared by what survives decoding.

    python -m training.miniworld.recipes2.autoencoder_study --out out/world2 --steps 500

Every variant sees the same pictures in the same order for the same number of steps; PSNR is of scenes of unseen
identities, seen and held-out relations in turn. Results are written after every round into `<out>/study.json`.
"""

import argparse
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...common.atomic_io import write_text
from ..recipes.pictures import tensor
from ..world2.relations import PAIRS
from ..world2.renderer import render
from ..world2.triplets import evaluation_plans
from . import autoencoder

CHANNELS = (4, 8, 16)


def validation_pictures(count: int, seed: int = 77) -> Tensor:
    """(count, 3, 128, 128): scenes of unseen identities, relations in turn."""
    names = tuple(PAIRS)
    plans = [evaluation_plans(names[i % len(names)], i // len(names) + 1, seed)[-1] for i in range(count)]
    return tensor([render(plan).image for plan in plans])


def study(out: Path, steps: int, rounds: int, channels: tuple[int, ...]) -> None:
    """Train each variant, `rounds` stops on the way, and append a row to the results at each."""
    pictures = validation_pictures(64)
    results = out / "study.json"
    rows = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    for count in channels:
        settings = replace(
            autoencoder.SETTINGS, name=f"autoencoder{count}", steps=steps, batch=8, warmup_steps=40, average=0.98
        )
        for stop in range(1, rounds + 1):
            started = time.process_time()
            state = autoencoder.train(out, torch.device("cpu"), 1e6, settings, steps * stop // rounds, count)
            cpu = time.process_time() - started
            model = autoencoder.load_trained(out / settings.name)
            row = {
                "channels": count,
                "step": state.step,
                "samples": state.samples,
                "cpu_seconds_of_round": round(cpu, 1),
                "wall_seconds": round(state.seconds, 1),
                "psnr": round(autoencoder.psnr(model, pictures), 3),
            }
            rows = [old for old in rows if (old["channels"], old["step"]) != (count, state.step)] + [row]
            write_text(results, json.dumps(rows, indent=1))
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/world2"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    study(args.out, args.steps, args.rounds, tuple(args.channels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
