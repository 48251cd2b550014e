"""Test the paper's claims in the miniworld: its tables 4 to 8 in small, and further questions of users.

Every cell learns the held-out relation anew for every seed, draws the same scenes of unseen identities and is counted
by the judges. A finished (row, seed) is a file; stopped at any moment, the same command goes on with the missing ones.
Rows that `ablation.json` holds of the same weights count as done. Whose tokens the image branch reads is measured on
the base: it draws with some of a subject's tokens taken from a stranger, another identity of the same species.
The rows are in `ablation_rows`, what is written of them in `ablation_report`.
"""

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...common.atomic_io import atomic_write, write_text
from ...common.cli import TrainingAborted, clock
from ...common.sheets import save_picture
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from ..recipes.classifiers import Classifiers, load_shipped
from ..recipes.pictures import to_uint8
from ..world.triplets import evaluation_plans
from .ablation_rows import (
    FULL,
    INVERSION,
    JOINTS,
    PICTURES,
    ROWS,
    SEEDS,
    VARIANTS,
    Row,
    cell_file,
    read_cell,
)
from .failures import draw_again, failure_row, failure_sheet, worst
from .generate import generate_images
from .injection import train_injection, with_injection
from .keypoint_probe import joint_distances
from .measure import Measurement, Predictions, classify, renders
from .sheets import tiled
from .text_embedding import train_text_embedding, with_text_embedding
from .train_relation import base_digest, relation_file, train_relation, with_relation


def ablate(
    out: Path,
    minutes: float,
    pictures: int = PICTURES,
    seeds: tuple[int, ...] = SEEDS,
    skip: Collection[str] = (),
    rows: Sequence[Row] = ROWS,
) -> Iterator[str]:
    """Count the missing cells of every row and seed; yield lines of progress.

    Args:
        out: receives `<recipe>/<seed>/` with the relations and `cells/` with the counts.
        minutes: no new cell is begun after these.
        pictures: of every row and seed.
        seeds: of triplets, training, scenes and noise.
        skip: names of rows, and JOINTS, that need no counting.
        rows: to count.
    Raises:
        TrainingAborted: `out` holds counts of other weights.
    """
    _check_base(out)
    world, judge = load_miniworld(), load_shipped()
    began = time.monotonic()
    if not (out / JOINTS).exists() and JOINTS not in skip:
        write_text(out / JOINTS, json.dumps(joint_distances(world, VARIANTS[FULL].relation, pictures, 1000)))
        yield "distances between joints"
    missing = [
        (row, seed) for row in rows if row.name not in skip for seed in seeds if not cell_file(out, row, seed).exists()
    ]
    for index, (row, seed) in enumerate(missing):
        if time.monotonic() - began > 60 * minutes:
            yield f"{len(missing) - index} cells are missing; the same command goes on with them"
            return
        verdicts = _count(out, world, judge, row, seed, pictures)
        score = Measurement.of(verdicts)
        yield (
            f"{row.name}, seed {seed}: relation {score.relation}, identity {score.identity}, "
            f"{clock(time.monotonic() - began)}"
        )


def _check_base(out: Path) -> None:
    stamp, present = out / "base.sha256", base_digest()
    if not stamp.exists():
        write_text(stamp, present)
    elif stamp.read_text(encoding="utf-8") != present:
        raise TrainingAborted(
            f"{out}: expected results of the present weights of the miniworld, found those of others. Choose "
            "another --out, or move that folder away."
        )


def _count(out: Path, world: Miniworld, judge: Classifiers, row: Row, seed: int, pictures: int) -> Predictions:
    recipe, folder = VARIANTS.get(row.recipe, VARIANTS[FULL]), out / row.recipe.replace(" ", "_") / str(seed)
    if row.recipe == INVERSION:
        embedding = train_text_embedding(world, recipe.relation, recipe.triplets, folder, seed)
        learnt = with_text_embedding(world, embedding)
    else:
        silent = replace(recipe, overrides=(*recipe.overrides, "samples.every=0"))
        learnt = with_relation(world, train_relation(silent, folder, seed) if row.recipe else None)
    plans = evaluation_plans(recipe.relation, pictures, 1000 + seed)
    with ExitStack() as stack:
        if row.injection:  # trained on the base, before the relation is merged into it
            trained = train_injection(world, row.injection, out / "injection", seed)
            stack.enter_context(with_injection(world, row.injection, trained))
        stack.enter_context(learnt)
        images = generate_images(world, plans, 1000 + seed, row.how) if row.how else renders(plans)
    verdicts = classify(judge, images, plans)
    cell = cell_file(out, row, seed)
    save_picture(tiled(to_uint8(images[:12])), cell.with_suffix(".png"))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **vars(verdicts))

    atomic_write(cell, write)
    return verdicts


def write_failures(out: Path, seeds: tuple[int, ...] = SEEDS) -> None:
    """Draw the worst of FULL's pictures that are counted in `out` again, into `failures.png`; nothing if none fails."""
    row = next(row for row in ROWS if row.name == FULL)
    cells = {seed: read_cell(cell_file(out, row, seed)) for seed in seeds if cell_file(out, row, seed).exists()}
    places = [(seed, index) for seed, predictions in cells.items() for index in range(len(predictions.relation))]
    world, pictures, captions = load_miniworld(), [], []
    for failure in worst(Predictions.joined(list(cells.values()))) if cells else ():
        seed, index = places[failure.index]
        plans = evaluation_plans(VARIANTS[FULL].relation, len(cells[seed].relation), 1000 + seed)
        with with_relation(world, relation_file(out / FULL / str(seed))):
            picture = draw_again(world, plans, 1000 + seed, index)
        pictures.append(failure_row(plans[index], picture, 1000 + seed, index))
        captions.append(f"{failure.kind} ({failure.many} of {len(places)}): {plans[index].caption.prompt}")
    if pictures:
        save_picture(failure_sheet(pictures, captions), out / "failures.png")
