"""Processes of one thread each that draw the demo's pictures, while the relation is learnt and afterwards.

Two threads on models this small wait for each other at every layer, and as torch leaves them they wait by spinning:
where a third process takes one of two cores, the other burns until it comes back (tests/bench/threads.py). Processes
share nothing, so each gets what the machine can give.
"""

import functools
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...host_diffusers.miniworld.bundle import load_miniworld
from ..world.triplets import evaluation_plans
from .generate import generate_images
from .train_relation import with_relation

SEED = 1000  # of the new creatures and their noise; the training's is 0


@dataclass(frozen=True)
class Drawing:
    """Some of the demo's pictures, for a process to draw.

    Attributes:
        relation, pictures: of all of them.
        start, stop: which.
        lora: the relation's file, or None for the base alone.
    """

    relation: str
    pictures: int
    start: int
    stop: int
    lora: Path | None


def draw(job: Drawing) -> tuple[np.ndarray, float]:
    """Draw (stop - start, 3, 128, 128) in [0, 1]; also the seconds it took."""
    began, world = time.monotonic(), _world()
    plans = evaluation_plans(job.relation, job.pictures, SEED)[: job.stop]
    with with_relation(world, job.lora):
        images = generate_images(world, plans, SEED, first=job.start)
    return images.numpy(), time.monotonic() - began


_world = functools.cache(load_miniworld)  # once in each process


@contextmanager
def drawers(workers: int) -> Iterator["multiprocessing.pool.Pool | None"]:
    """Open processes of one thread each that draw, until the block ends; None for one worker, this process."""
    if workers < 2:
        yield None
        return
    # this process computes on one thread, so its copy does not wait for threads that it has not got
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(workers, _begin_drawing) as pool:
        yield pool


def _begin_drawing() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that can say how to go on
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
