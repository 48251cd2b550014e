"""What a relation LoRA on the small Flux learns, by its sites, its losses and its data; and what identities it costs.

Every cell learns the held-out relation anew from five triplets, draws the same scenes of unseen identities and is
judged twice, as `measure_flux`: in the boxes that were asked for, and wherever the creatures stand. A finished (row,
seed) is a file; stopped at any moment, the same command goes on with what is missing. Rows: DreamRelation
arXiv:2410.23280, table 4, and what a Flux adds: where the LoRA sits, which references it has seen, DreamO's routing
loss. A site is as good as SDXL's where the relation is seen in 85 % and fur stays within 5 points of the base's own.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.relation.flux_lora import load_flux_pairs

from ...common.atomic_io import atomic_write, write_text
from ...common.cli import TrainingAborted, clock
from ...common.sheets import save_picture
from ...host_diffusers.flux.lora import merged
from ...host_diffusers.miniworld.architectures import FOLDER
from ..recipes.classifiers import Classifiers, load_shipped
from ..recipes.pictures import to_uint8
from ..world.relations import SEEN
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan
from ..world.triplets import evaluation_plans, plans_in_turn
from .generate import request_of
from .generate_flux import FluxWorld, generate
from .measure import Predictions, Share, classify
from .measure_flux import COLUMNS, Layouts, located, shares
from .sheets import tiled
from .train_relation import AblationVariant, train_relation

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "relation_flux_miniworld.toml"
PICTURES, SEEDS, _RELATION = 72, (0, 1, 2), "hugging"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the line.
        overrides: over relation_flux_miniworld.toml; None draws with the base alone.
        site: whether the site under study is added to them.
        copy_paste: concepts are cut from the targets.
        references: drawn with them.
        seen_relations: drawn in those, which the base knows, as the measure of identity.
    """

    name: str
    overrides: tuple[str, ...] | None = ()
    site: bool = True
    copy_paste: bool = False
    references: bool = True
    seen_relations: bool = False


_RANK_4 = ("lora.rank=4", "lora.alpha=4.0")
ROWS = (
    Row("base alone", None),
    Row("base alone, relations it knows", None, seen_relations=True),
    Row("T, rank 4", ("lora.sites=T", *_RANK_4), site=False),
    Row("T, rank 20", ("lora.sites=T", "lora.rank=20", "lora.alpha=20.0"), site=False),
    Row("QK, rank 4", ("lora.sites=QK", *_RANK_4), site=False),
    Row("DS, rank 4", ("lora.sites=DS", *_RANK_4), site=False),
    Row("without KML", ("loss.keypoint_weight=0.0",)),
    Row("KML to t = 0.7", ("loss.keypoint_max_time=0.7",)),
    Row("KML from 0.3 to 0.7", ("loss.keypoint_min_time=0.3", "loss.keypoint_max_time=0.7")),
    Row("KML weight x 10", ("loss.keypoint_weight=4e-2",)),
    Row("without references in training", ("references.drop=1.0",)),
    Row("drawn without references", _RANK_4, references=False),
    Row("with the routing loss", ("loss.routing_weight=1.0",)),
    Row("copy-paste triplets", copy_paste=True),
)


def ablate(
    out: Path,
    minutes: float,
    sites: str = "T",
    pictures: int = PICTURES,
    seeds: tuple[int, ...] = SEEDS,
    rows: tuple[Row, ...] = ROWS,
    more: tuple[str, ...] = (),
) -> Iterator[str]:
    """Fill in what is missing of every row and seed; yield lines of progress.

    Args:
        out: receives `<run>/<seed>/` with the relations and `cells/` with what was counted.
        minutes: no new cell is begun after these.
        sites: of the rows that do not study sites.
        pictures: of every row and seed.
        seeds: of triplets, training, scenes and noise.
        rows: of the table.
        more: overrides of every row, e.g. fewer steps.

    Raises:
        TrainingAborted: `out` holds what was counted otherwise.
    """
    _check_base(out, {"models": digest(), "sites": sites, "pictures": pictures, "more": list(more)})
    world, jury, began = FluxWorld.shipped(), load_shipped(), time.monotonic()
    missing = [(row, seed) for row in rows for seed in seeds if not _cell(out, row, seed).exists()]
    for index, (row, seed) in enumerate(missing):
        if time.monotonic() - began > 60 * minutes:
            yield f"{len(missing) - index} cells are missing; the same command goes on with them"
            return
        in_boxes, wherever = _count(out, world, jury, row, seed, sites, pictures, more)
        counted = shares(in_boxes, wherever)
        spent = clock(time.monotonic() - began)
        yield f"{row.name}, seed {seed}: relation {counted['relation']}, fur wherever {counted['fur_found']}, {spent}"


def results(out: Path, seeds: tuple[int, ...] = SEEDS, rows: tuple[Row, ...] = ROWS) -> dict[str, dict]:
    """Pool the finished seeds of every row: shares with intervals, and relation and fur of each seed."""
    pooled_rows = {}
    for row in rows:
        cells = [_read(_cell(out, row, seed)) for seed in seeds if _cell(out, row, seed).exists()]
        if cells:
            pooled = shares(*(Predictions.joined(list(parts)) for parts in zip(*cells)))
            each = [shares(*cell) for cell in cells]
            pooled_rows[row.name] = {name: asdict(share) for name, share in pooled.items()} | {
                "seeds": {
                    name: [round(of_seed[name].value, 3) for of_seed in each] for name in ("relation", "fur_found")
                }
            }
    return pooled_rows


def table(pooled_rows: dict[str, dict]) -> str:
    """Write the rows as Markdown, in percent with 95 % intervals; the relation's share in every seed at the end."""
    columns = {**COLUMNS, "fused": "bodies fused"}
    titles = ("learnt", *columns.values(), "relation, seed by seed", "pictures")
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for name, row in pooled_rows.items():
        cells = [str(Share(**row[key])) for key in columns]
        seeds = ", ".join(f"{100 * share:.0f}" for share in row["seeds"]["relation"])
        lines.append(f"| {' | '.join((name, *cells, seeds))} | {row['relation']['trials']} |")
    return "\n".join(lines)


def write_results(out: Path) -> str:
    """Write `ablation.json` and `table.md` of what is finished; return the table."""
    pooled_rows = results(out)
    text = table(pooled_rows)
    write_text(out / "ablation.json", json.dumps(pooled_rows, indent=1) + "\n")
    write_text(out / "table.md", text + "\n")
    return text


def digest(folder: Path = FOLDER) -> str:
    """Hash the weights in use here, judges too."""
    weights_hash = hashlib.sha256()
    for path in sorted(
        [*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors"), *folder.glob("flux/*/*.safetensors")]
    ):
        if path.parent.name != "relations":
            weights_hash.update(path.read_bytes())
    return weights_hash.hexdigest()


def _check_base(out: Path, facts: dict) -> None:
    stamp, text = out / "counted.json", json.dumps(facts, indent=1) + "\n"
    if not stamp.exists():
        write_text(stamp, text)
    elif stamp.read_text(encoding="utf-8") != text:
        raise TrainingAborted(
            f"{out}: expected results of the present weights, sites and pictures, found those of others. Choose "
            "another --out, or move that folder away."
        )


def _count(
    out: Path,
    world: FluxWorld,
    jury: Classifiers,
    row: Row,
    seed: int,
    sites: str,
    pictures: int,
    more: tuple[str, ...],
) -> tuple[Predictions, Predictions]:
    """Learn, draw and judge one cell."""
    plans = _plans(row, pictures, 1000 + seed)
    if row.overrides is None:
        images = _draw(world, plans, row, 1000 + seed)
    else:
        chosen = (f"lora.sites={sites}",) if row.site else ()
        variant = AblationVariant(
            _RELATION, copy_paste=row.copy_paste, overrides=(*chosen, *row.overrides, "samples.every=0", *more)
        )
        lora = train_relation(variant, out / _slug(_run_of(row, sites)) / str(seed), seed, config=CONFIG)
        with merged(world.flux.transformer, load_flux_pairs(lora)[0]):
            images = _draw(world, plans, row, 1000 + seed)
    layouts = [Layouts.of(plan, generator(seed, Stream.LAYOUT, index)) for index, plan in enumerate(plans)]
    predictions = classify(jury, images, plans), classify(jury, images, located(jury, images, layouts))
    cell = _cell(out, row, seed)
    save_picture(tiled(to_uint8(images[:12])), cell.with_suffix(".png"))
    named = zip(("there", "found"), predictions)
    arrays = {f"{name}.{key}": value for name, each in named for key, value in vars(each).items()}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    atomic_write(cell, write)
    return predictions


def _plans(row: Row, pictures: int, seed: int) -> list[ScenePlan]:
    if not row.seen_relations:
        return evaluation_plans(_RELATION, pictures, seed)
    return plans_in_turn(SEEN, pictures, seed)


def _draw(world: FluxWorld, plans: list[ScenePlan], row: Row, seed: int) -> Tensor:
    requests = [request_of(plan, seed, index) for index, plan in enumerate(plans)]
    if not row.references:
        requests = [replace(request, references=request.references[:0], names=()) for request in requests]
    return torch.stack([generate(world, request, seed + index) for index, request in enumerate(requests)])


def _run_of(row: Row, sites: str) -> str:
    """Name the training of a row; drawing without references needs none of its own."""
    return row.name if row.references else f"{sites}, rank 4"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _cell(out: Path, row: Row, seed: int) -> Path:
    return out / "cells" / f"{_slug(row.name)}-{seed}.npz"


def _read(path: Path) -> tuple[Predictions, Predictions]:
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            Predictions(**{key.partition(".")[2]: arrays[key] for key in arrays if key.startswith(f"{name}.")})
            for name in ("there", "found")
        )
