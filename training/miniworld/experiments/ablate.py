"""Test the paper's claims in the miniworld: its table 4 in small, and further questions of users.

Every cell learns the held-out relation anew for every seed, draws the same scenes of unseen identities and is counted
by the judges. A finished (row, seed) is a file; stopped at any moment, the same command goes on with the missing ones.
Rows that `ablation.json` holds of the same weights count as done. Whose tokens the image branch reads is measured on
the base: it draws with some of a subject's tokens taken from a stranger, another identity of the same species.
Source of the rows: DreamRelation arXiv:2410.23280, tables 4 (parts left out) and 7 (local tokens), its KML weights.
"""

import json
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...common.atomic_io import atomic_write, write_text
from ...common.cli import TrainingAborted, clock
from ...common.sheets import save_picture
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from ..recipes.classifiers import Classifiers, load_shipped
from ..recipes.pictures import to_uint8
from ..world.triplets import evaluation_plans
from .generate import Drawing, generate_images
from .keypoint_probe import joint_distances
from .keypoint_probe import table as joint_table
from .measure import Measurement, Predictions, Share, classify, renders
from .report import write_section
from .sheets import tiled
from .train_relation import AblationVariant, base_digest, train_relation, with_relation

PICTURES, SEEDS = 72, (0, 1, 2)
FULL, JOINTS = "full", "joints.json"
VARIANTS = {
    FULL: AblationVariant(),
    "without relation-aware data": AblationVariant(copy_paste=True),
    "without local tokens": AblationVariant(overrides=('models.local_clip_vision=""',)),
    "without KML": AblationVariant(overrides=("loss.keypoint_weight=0.0",)),
    "KML weight 1e-2": AblationVariant(overrides=("loss.keypoint_weight=1e-2",)),
    "KML weight 1e-4": AblationVariant(overrides=("loss.keypoint_weight=1e-4",)),
    "local grid 2": AblationVariant(overrides=("identity.local_grid=2",)),
    "local grid 8": AblationVariant(overrides=("identity.local_grid=8",)),
}


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        table: its heading.
        name: of the line.
        recipe: key of VARIANTS; empty draws with the base alone.
        how: settings of the drawing; None takes the renderer's own, which bound what the judges can see.
    """

    table: str
    name: str
    recipe: str = FULL
    how: Drawing | None = field(default=Drawing())


_PARTS, _WEIGHTS, _GRIDS = "Parts left out (paper's table 4)", "Weight of the keypoint loss", "Local tokens"
_STRENGTHS, _BOXES = "Strength of the image branch when drawing", "Boxes when drawing"
_TOKENS = "Whose tokens the base alone is given"
ROWS = (
    Row(_PARTS, "the renderer's own", "", None),
    Row(_PARTS, "base alone", ""),
    Row(_PARTS, FULL),
    Row(_PARTS, "without relation-aware data", "without relation-aware data"),
    Row(_PARTS, "without local tokens", "without local tokens", Drawing(grid=0)),
    Row(_PARTS, "without KML", "without KML"),
    Row(_STRENGTHS, "strength 0", how=Drawing(strength=0.0)),
    Row(_STRENGTHS, "strength 0.3", how=Drawing(strength=0.3)),
    Row(_STRENGTHS, "strength 0.9", how=Drawing(strength=0.9)),
    Row(_STRENGTHS, "strength 1.2", how=Drawing(strength=1.2)),
    Row(_BOXES, "boxes cut apart", how=Drawing(boxes="apart")),
    Row(_TOKENS, "all 65 CLIP tokens a stranger's", "", Drawing(stranger="clip")),
    Row(_TOKENS, "all 16 local tokens a stranger's", "", Drawing(stranger="local")),
    Row(_TOKENS, "local tokens left out", "", Drawing(grid=0)),
    Row(_WEIGHTS, "KML weight 1e-2", "KML weight 1e-2"),
    Row(_WEIGHTS, "KML weight 1e-4", "KML weight 1e-4"),
    Row(_GRIDS, "local grid 2", "local grid 2", Drawing(grid=2)),
    Row(_GRIDS, "local grid 8", "local grid 8", Drawing(grid=8)),
)


def ablate(
    out: Path,
    minutes: float,
    pictures: int = PICTURES,
    seeds: tuple[int, ...] = SEEDS,
    skip: Collection[str] = (),
) -> Iterator[str]:
    """Count the missing cells of every row and seed; yield lines of progress.

    Args:
        out: receives `<recipe>/<seed>/` with the relations and `cells/` with the counts.
        minutes: no new cell is begun after these.
        pictures: of every row and seed.
        seeds: of triplets, training, scenes and noise.
        skip: names of rows, and JOINTS, that need no counting.
    Raises:
        TrainingAborted: `out` holds counts of other weights.
    """
    _check_base(out)
    world, judge = load_miniworld(), load_shipped()
    began = time.monotonic()
    if not (out / JOINTS).exists() and JOINTS not in skip:
        write_text(out / JOINTS, json.dumps(joint_distances(world, VARIANTS[FULL].relation, pictures, 1000)))
        yield "distances between joints"
    rows = [row for row in ROWS if row.name not in skip]
    missing = [(row, seed) for row in rows for seed in seeds if not _cell(out, row, seed).exists()]
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
    recipe = VARIANTS[row.recipe or FULL]
    silent = replace(recipe, overrides=(*recipe.overrides, "samples.every=0"))
    lora = train_relation(silent, out / row.recipe.replace(" ", "_") / str(seed), seed) if row.recipe else None
    plans = evaluation_plans(recipe.relation, pictures, 1000 + seed)
    with with_relation(world, lora):
        images = generate_images(world, plans, 1000 + seed, row.how) if row.how else renders(plans)
    verdicts = classify(judge, images, plans)
    cell = _cell(out, row, seed)
    save_picture(tiled(to_uint8(images[:12])), cell.with_suffix(".png"))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **vars(verdicts))

    atomic_write(cell, write)
    return verdicts


def results(out: Path, seeds: tuple[int, ...] = SEEDS) -> dict[str, dict]:
    """Pool the scores of rows with at least one finished seed; also the relation's share in every seed."""
    rows = {}
    for row in ROWS:
        parts = [_read(_cell(out, row, seed)) for seed in seeds if _cell(out, row, seed).exists()]
        if parts:
            pooled = Measurement.of(Predictions.joined(parts)).table()
            rows[row.name] = {
                "table": row.table,
                **pooled,
                "seeds": [round(float(part.relation.mean()), 3) for part in parts],
            }
    return rows


def tables(rows: dict[str, dict]) -> str:
    """Write the results as Markdown, in percent with 95 % intervals; keypoints in box sides."""
    lines: list[str] = []
    heading = ""
    for name, row in rows.items():
        if row["table"] != heading:
            heading = row["table"]
            lines += [
                "",
                f"| {heading} | relation | identity | confusion | emblem | fused | keypoint distance | pictures |",
                "| --- " * 8 + "|",
            ]
        shares = ("relation", "identity", "confusion", "emblem", "fused")
        cells = [str(Share(**row[key])) if key in row else "-" for key in shares]
        distance = row["keypoints"]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {distance['value']:.3f} ({distance['low']:.3f} to "
            f"{distance['high']:.3f}) | {row['relation']['trials']} |"
        )
    return "\n".join(lines).strip()


def recorded(card: Path) -> dict[str, dict]:
    """Read the rows of `ablation.json` beside the model card, and JOINTS; nothing if they are of other weights."""
    path = card.with_name("ablation.json")
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["base"] != base_digest():
        return {}
    return record["rows"] | ({JOINTS: record["joints"]} if record["joints"] else {})


def complete_rows(card: Path) -> list[str]:
    """List the names in `recorded` that need no more counting: rows of every seed, and JOINTS."""
    return [name for name, row in recorded(card).items() if name == JOINTS or len(row["seeds"]) >= len(SEEDS)]


def write_results(out: Path, card: Path) -> dict[str, dict]:
    """Write `ablation.json` beside the model card, and the tables between its marks; return the rows.

    Of a row that is recorded and counted anew, the one with more pictures stays, the new one if they have as many.
    """
    rows = recorded(card)
    joints = rows.pop(JOINTS, {})
    if (out / JOINTS).exists():
        joints = json.loads((out / JOINTS).read_text(encoding="utf-8"))
    for name, row in results(out).items():
        if name not in rows or row["relation"]["trials"] >= rows[name]["relation"]["trials"]:
            rows[name] = row
    ordered_rows = {row.name: rows[row.name] for row in ROWS if row.name in rows}
    record = {"base": base_digest(), "rows": ordered_rows, "joints": joints}
    write_text(card.with_name("ablation.json"), json.dumps(record, indent=1) + "\n")
    parts = [tables(ordered_rows), joint_table(joints)] if joints else [tables(ordered_rows)]
    write_section(card, "ablation", "\n\n".join(parts))
    return ordered_rows


def _cell(out: Path, row: Row, seed: int) -> Path:
    return out / "cells" / f"{row.name.replace(' ', '_')}-{seed}.npz"


def _read(path: Path) -> Predictions:
    with np.load(path, allow_pickle=False) as arrays:
        return Predictions(**arrays)
