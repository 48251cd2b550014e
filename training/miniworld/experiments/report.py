"""The miniworld's measurements: one command counts everything the model card states."""

import json
from pathlib import Path

import torch

from ...common.atomic_io import write_text
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes import classifiers as judges
from ..recipes.vae import reconstruction
from ..world.relations import HELD_OUT, SEEN
from ..world.triplets import evaluation_plans
from .generate import generate_images
from .measure import Share, measure, renders


def measure_world(world: Miniworld, pictures: int, seed: int = 0) -> dict:
    """Counts, on identities never seen: reconstruction error, relations, identities and confusions.

    Args:
        world: the models.
        pictures: samples for the seen and for the held-out relations each.
        seed: of plans and noise.
    Returns:
        Numbers by name, for JSON.
    """
    facts: dict = {"reconstruction": _reconstruction(world, seed)}
    judge = judges.load_shipped()
    facts["judges_on_renders"] = judges.shipped_accuracy()
    for name, relations in (("seen_relations", SEEN), ("held_out_relations", HELD_OUT)):
        plans = [evaluation_plans(relations[index % len(relations)], 1, seed + index)[0] for index in range(pictures)]
        facts[name] = measure(judge, generate_images(world, plans, seed), plans).table()
        if name == "seen_relations":
            facts["judges_on_reconstructions"] = _judged_reconstructions(world, judge, plans)
    return facts


def write_measurements(world: Miniworld, card: Path, pictures: int) -> dict:
    """Writes `measure_world` into `measurements.json` beside the model card and between the card's marks."""
    facts = measure_world(world, pictures)
    write_text(card.with_name("measurements.json"), json.dumps(facts, indent=1) + "\n")
    write_section(card, "measured", measured(facts))
    return facts


def measured(facts: dict) -> str:
    """The measurements as Markdown, in percent with 95 % intervals."""
    rows = {
        "samples, seen relations": facts["seen_relations"],
        "samples, held-out relations": facts["held_out_relations"],
        "the autoencoder's copies of renders": facts["judges_on_reconstructions"],
    }
    lines = [
        "| unseen identities | relation | traits right | all five right | confusion | pictures |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        cells = [str(Share(**row[key])) for key in ("relation", "identity", "whole", "confusion")]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['relation']['trials']} |")
    known = facts["judges_on_renders"]
    right = ", ".join(f"{name} {100 * value:.1f}" for name, value in known.items() if name != "keypoint_error")
    lost = facts["reconstruction"]
    return "\n".join(lines) + (
        f"\n\nThe judges on renders they never saw, in % right: {right}; keypoints off by "
        f"{known['keypoint_error']:.3f} of a box side. Autoencoder: PSNR {lost['psnr']} dB, L1 {lost['l1']} (pictures "
        "in [-1, 1])."
    )


def write_section(card: Path, name: str, text: str) -> None:
    """Replaces what stands between the card's marks `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: the card has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = card.read_text(encoding="utf-8")
    if begin not in whole or end not in whole.partition(begin)[2]:
        raise ValueError(f"{card}: expected the marks {begin} and {end}, between which the results go; add them")
    before, _, rest = whole.partition(begin)
    write_text(card, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def _reconstruction(world: Miniworld, seed: int, count: int = 56) -> dict[str, float]:
    """Errors of the autoencoder on unseen identities, pictures in [-1, 1]; PSNR in decibels."""
    plans = [evaluation_plans(SEEN[index % len(SEEN)], 1, seed + index)[0] for index in range(count)]
    images = renders(plans)
    with torch.no_grad():
        back = world.to_images(world.to_latents(images))
    errors = {name: round(float(value), 4) for name, value in reconstruction(back * 2 - 1, images * 2 - 1).items()}
    return {**errors, "psnr": round(float(-10 * torch.log10((back - images).square().mean())), 2)}


def _judged_reconstructions(world: Miniworld, judge: judges.Classifiers, plans: list) -> dict:
    """What the judges see in reconstructions: a bound on what they can see in samples."""
    with torch.no_grad():
        back = world.to_images(world.to_latents(renders(plans)))
    return measure(judge, back, plans).table()
