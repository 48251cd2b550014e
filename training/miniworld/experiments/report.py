"""Measure the miniworld's models row by row, and write the model card's tables."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...common.atomic_io import write_text
from ...common.sheets import save_picture
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes import classifiers
from ..recipes.autoencoder import reconstruction
from ..world.relations import HELD_OUT, SEEN
from ..world.scene import ScenePlan
from ..world.triplets import look_alike_plans, plans_in_turn
from .generate import PLAIN, Drawing, copies, generate_images
from .measure import Share, measure, renders
from .sheets import beside

SIDE_BY_SIDE = 36  # pictures of a sheet
SAMPLES_QUALITY = 75  # of `samples.jpg`, the seen relations' sheet beside the card


@dataclass(frozen=True)
class Row:
    """One set of pictures that is counted.

    Attributes:
        name: in the card's table.
        plans: from (pictures, seed) to the plans.
        how: the pictures are drawn; None takes the renderer's own, "copies" the autoencoder's copies of them.
    """

    name: str
    plans: Callable[[int, int], list[ScenePlan]]
    how: Drawing | str | None = PLAIN


def _look_alikes(count: int, seed: int) -> list[ScenePlan]:
    return look_alike_plans("sitting beside", max(count // 4, 2), seed)


_SEEN, _HELD_OUT = partial(plans_in_turn, SEEN), partial(plans_in_turn, HELD_OUT)
# keys of measurements.json
ROWS = {
    "renders": Row("the renderer's own", _SEEN, None),
    "judges_on_reconstructions": Row("the autoencoder's copies of renders", _SEEN, "copies"),
    "seen_relations": Row("samples, seen relations", _SEEN),
    "without_local_tokens": Row("the same without local tokens", _SEEN, Drawing(grid=0)),
    "strangers_local_tokens": Row("the same with a stranger's local tokens", _SEEN, Drawing(stranger="local")),
    "held_out_relations": Row("samples, held-out relations", _HELD_OUT),
    "look_alikes": Row("two that differ in their emblems alone", _look_alikes),
}
COLUMNS = {
    "relation": "relation",
    "identity": "traits right",
    "whole": "all five right",
    "confusion": "confusion",
    "emblem": "emblem right",
    "fused": "called fused",
}


def measure_world(
    world: Miniworld, folder: Path, pictures: int, sheets: Path | None = None, seed: int = 0, steps: int | None = None
) -> Iterator[dict]:
    """Count, on identities never seen, row after row; yield the facts so far, for JSON.

    Args:
        world: the models.
        folder: with the classifiers.
        pictures: of every row; of the look-alikes a quarter.
        sheets: receives a sheet for every row, renders beside samples; None: no sheets.
        seed: of plans and noise.
        steps: of the sampler; None: the default.
    """
    facts: dict = {}
    judge, accuracy = classifiers.load_shipped(folder), classifiers.shipped_accuracy(folder)
    for key, row in ROWS.items():
        plans = row.plans(pictures, seed)
        truth = renders(plans)
        if isinstance(row.how, Drawing):
            how = row.how if steps is None else replace(row.how, steps=steps)
            images = generate_images(world, plans, seed, how)
        else:
            images = truth if row.how is None else copies(world, truth)
        if key == "judges_on_reconstructions":
            facts |= {"reconstruction": _errors(images, truth), "judges_on_renders": accuracy}
        facts[key] = measure(judge, images, plans).table()
        if sheets is not None:
            save_picture(beside(truth[:SIDE_BY_SIDE], images[:SIDE_BY_SIDE]), sheets / f"{key}.png")
        yield facts


def write_measurements(
    world: Miniworld, card: Path, pictures: int, sheets: Path | None = None, steps: int | None = None
) -> dict:
    """Write `measure_world` into `measurements.json` beside the model card and between the card's marks, row by row.

    The sheet of the seen relations, renders beside samples, goes to `samples.jpg` beside the card.
    """
    facts: dict = {}
    for facts in measure_world(world, card.parent, pictures, sheets, steps=steps):
        write_text(card.with_name("measurements.json"), json.dumps(facts, indent=1) + "\n")
        if card.exists():
            write_section(card, "measured", measurements_text(facts))
    if sheets is not None and card.exists():
        with Image.open(sheets / "seen_relations.png") as sheet:
            sheet.save(card.with_name("samples.jpg"), quality=SAMPLES_QUALITY, optimize=True)
    return facts


def measurements_text(facts: dict) -> str:
    """Write the measurements as Markdown, in percent with 95 % intervals."""
    titles = ("unseen identities", *COLUMNS.values(), "pictures")
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for key, row in ROWS.items():
        if key in facts:
            scores = facts[key]
            cells = [str(Share(**scores[column])) if column in scores else "-" for column in COLUMNS]
            lines.append(f"| {row.name} | {' | '.join(cells)} | {scores['relation']['trials']} |")
    text = "\n".join(lines)
    if "judges_on_renders" in facts:
        accuracy, errors = facts["judges_on_renders"], facts["reconstruction"]
        right = ", ".join(f"{name} {100 * value:.1f}" for name, value in accuracy.items() if name != "keypoint_error")
        text += (
            f"\n\nThe classifiers on renders they never saw, in % right: {right}; keypoints off by "
            f"{accuracy['keypoint_error']:.3f} of a box side. Autoencoder: PSNR {errors['psnr']} dB, L1 {errors['l1']} "
            "(pictures in [-1, 1])."
        )
    return text


def write_trained(card: Path) -> None:
    """Write steps, samples and minutes of each training between the card's marks, from the exports' files.

    `machine` in `training.json` says whose minutes they are, where the runs were not of one core of a CPU.
    """
    files = {"": "training.json", "small Flux, DreamO: ": "flux/training.json"}
    files |= {"small Flux, numbered references: ": "flux_index/training.json"}
    lines = ["| recipe | steps | samples seen | minutes |", "| --- " * 4 + "|"]
    corpus: dict = {}
    machine = "one core of a CPU, in float32"
    for prefix, file in files.items():
        path = card.parent / file
        runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        corpus, machine = runs.pop("corpus", corpus), runs.pop("machine", machine)
        for name, run in runs.items():
            lines.append(f"| {prefix}{name} | {run['steps']:,} | {run['samples']:,} | {run['minutes']} |")
    lines += ["", f"Trained on {corpus['scenes']:,} scenes of {corpus['identities']:,} identities with "]
    lines[-1] += f"{corpus['portraits']} portraits each, seed {corpus['seed']}. Minutes of {machine}."
    write_section(card, "trained", "\n".join(lines))


def write_section(card: Path, name: str, text: str) -> None:
    """Replace the text between the card's marks `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: the card has no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = card.read_text(encoding="utf-8")
    if begin not in whole or end not in whole.partition(begin)[2]:
        raise ValueError(f"{card}: expected the marks {begin} and {end}, between which the results go; add them")
    before, _, rest = whole.partition(begin)
    write_text(card, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def _errors(copies: Tensor, images: Tensor) -> dict[str, float]:
    """Measure the errors of the autoencoder, pictures in [-1, 1]; PSNR in decibels."""
    errors = {name: round(float(value), 4) for name, value in reconstruction(copies * 2 - 1, images * 2 - 1).items()}
    return {**errors, "psnr": round(float(-10 * torch.log10((copies - images).square().mean())), 2)}
