"""Choose the number of latent channels: autoencoders of 4, 8 and 16 trained alike, compared by PSNR.

    python -m training.miniworld.recipes.autoencoder_study --out out/miniworld --steps 100 --rounds 10

Every variant sees the same pictures in the same order for the same number of steps, one round after the other; PSNR is
of scenes of unseen identities, seen and held-out relations in turn. Results are written after every round into
`<out>/study.json`. `--linear` adds the bound of a linear code (PCA of 8 x 8 cells).
"""

import argparse
import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ..world.relations import PAIRS
from ..world.renderer import render
from ..world.triplets import evaluation_plans
from . import autoencoder
from .corpus import Corpus
from .pictures import to_tensor

CHANNELS = (16, 8, 4)
LINEAR_CHANNELS = (4, 8, 16, 32)
SETTINGS = replace(autoencoder.SETTINGS, steps=10**6, batch_size=8, warmup_steps=40, ema_decay=0.98)


def validation_pictures(count: int, seed: int = 77) -> Tensor:
    """Render (count, 3, 128, 128): scenes of unseen identities, relations in turn."""
    names = tuple(PAIRS)
    plans = [evaluation_plans(names[i % len(names)], i // len(names) + 1, seed)[-1] for i in range(count)]
    return to_tensor([render(plan).image for plan in plans])


def study(out: Path, steps: int, rounds: int, channels: tuple[int, ...]) -> None:
    """Train the variants in turn, `steps` more each round, and write a row for each: stopped at any time, all compare.

    Args:
        out: holds the corpus; receives the runs and `study.json`.
        steps: of each variant in each round.
        rounds: how many.
        channels: the variants.
    """
    pictures = validation_pictures(48)
    results = out / "study.json"
    rows = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    for stop in range(steps, steps * rounds + 1, steps):
        for count in channels:
            # a schedule without an end: no cool-down, crops all along
            settings = replace(SETTINGS, name=f"autoencoder{count}")
            started = time.process_time()
            state = autoencoder.train(out, torch.device("cpu"), 1e6, settings, stop, count)
            row = {
                "channels": count,
                "step": state.step,
                "pictures": state.samples,
                "cpu_seconds_of_round": round(time.process_time() - started, 1),
                "wall_seconds": round(state.seconds, 1),
                "psnr": round(autoencoder.psnr(autoencoder.load_trained(out / settings.name), pictures), 3),
            }
            rows = [old for old in rows if (old["channels"], old["step"]) != (count, state.step)] + [row]
            write_text(results, json.dumps(rows, indent=1))
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


def linear_bound(out: Path, channels: tuple[int, ...], pictures: Tensor, count: int = 1500) -> dict[int, float]:
    """Return the PSNR in dB of pictures through the best linear code of each 8 x 8 cell, learnt on corpus scenes."""
    scenes = Corpus.open(out / "corpus").scenes
    cells = (
        F.pixel_unshuffle(to_tensor(scenes[np.arange(min(count, len(scenes)))]), 8).permute(0, 2, 3, 1).flatten(0, 2)
    )
    middle = cells.mean(0)
    basis = torch.linalg.eigh(torch.cov((cells - middle).T))[1].flip(1)  # (192, 192), largest variance first
    targets = F.pixel_unshuffle(pictures, 8).permute(0, 2, 3, 1).flatten(0, 2) - middle
    bounds = {}
    for channel_count in channels:
        code = targets @ basis[:, :channel_count]
        bounds[channel_count] = round(
            float(-10 * (code @ basis[:, :channel_count].T - targets).square().mean().log10()), 2
        )
    return bounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=of_type.path, default=Path("out/miniworld"))
    parser.add_argument("--steps", type=of_type.whole(), default=100, help="of each variant in each round")
    parser.add_argument("--rounds", type=of_type.whole(), default=10)
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--linear", action="store_true", help="first, the bound of linear codes")
    parser.add_argument("--threads", type=of_type.whole(), default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    if args.linear:
        bounds = linear_bound(args.out, LINEAR_CHANNELS, validation_pictures(48))
        write_text(args.out / "linear.json", json.dumps(bounds))
        sys.stdout.write(f"linear codes, dB: {bounds}\n")
    study(args.out, args.steps, args.rounds, tuple(args.channels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
