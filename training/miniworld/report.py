"""The miniworld's measurements: one command counts everything the model card states."""

import json
from pathlib import Path

import numpy as np
import torch

from training.host_diffusers.miniworld_parts import Miniworld

from . import judges
from .measure import measure
from .relations import HELD_OUT, SEEN
from .renderer import render
from .sheets import samples
from .triplets import evaluation_plans
from .vae import reconstruction


def measure_world(world: Miniworld, out: Path, pictures: int, seed: int = 0) -> dict:
    """Counts, on identities never seen: reconstruction error; with trained judges also relations and identities.

    Args:
        world: the models.
        out: holds the judges' run and their truth, if there are any.
        pictures: samples for the seen and for the held-out relations each.
        seed: of plans and noise.
    Returns:
        Numbers by name, for JSON.
    """
    facts: dict = {"reconstruction": _reconstruction(world, seed)}
    if not (out / "judges" / "latest.json").exists():
        return facts
    judge = judges.load_trained(out)
    facts["judges_on_renders"] = judges.validate(out)
    for name, relations in (("seen_relations", SEEN), ("held_out_relations", HELD_OUT)):
        plans = [evaluation_plans(relations[index % len(relations)], 1, seed + index)[0] for index in range(pictures)]
        facts[name] = measure(judge, samples(world, plans, seed), plans).table()
        if name == "seen_relations":
            facts["judges_on_reconstructions"] = _judged_reconstructions(world, judge, plans)
    return facts


def write_measurements(world: Miniworld, out: Path, path: Path, pictures: int) -> dict:
    """Writes `measure_world` as JSON and returns it."""
    facts = measure_world(world, out, pictures)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _renders(plans: list) -> torch.Tensor:
    images = np.stack([render(plan).image for plan in plans])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _reconstruction(world: Miniworld, seed: int, count: int = 56) -> dict[str, float]:
    """Errors of the autoencoder on unseen identities, pictures in [-1, 1]; PSNR in decibels."""
    plans = [evaluation_plans(SEEN[index % len(SEEN)], 1, seed + index)[0] for index in range(count)]
    images = _renders(plans)
    with torch.no_grad():
        back = world.to_images(world.to_latents(images))
    errors = {name: round(float(value), 4) for name, value in reconstruction(back * 2 - 1, images * 2 - 1).items()}
    return {**errors, "psnr": round(float(-10 * torch.log10((back - images).square().mean())), 2)}


def _judged_reconstructions(world: Miniworld, judge: judges.Judges, plans: list) -> dict:
    """What the judges see in reconstructions: a bound on what they can see in samples."""
    with torch.no_grad():
        back = world.to_images(world.to_latents(_renders(plans)))
    return measure(judge, back, plans).table()
