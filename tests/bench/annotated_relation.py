"""What annotation costs a relation: the demo's, learnt from exact triplets and from what `annotate` finds in them.

    python -m tests.bench.annotated_relation --out out/annotated         some four minutes of one core a run

The triplets of `make demo` are drawn; `training.annotate` gets their pictures and writes sentences, boxes, masks and
joints by the miniworld's own detector and classifiers. A row learns the same five pictures by the demo's recipe, with
some of these in place of the exact ones, once with each seed, and is counted on the demo's scenes; a finished run is
not counted again.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.annotate import annotate
from training.annotation.options import AnnotateOptions
from training.common import arguments as of_type
from training.common.atomic_io import atomic_write, write_text
from training.common.cli import TrainingAborted, say
from training.miniworld.experiments.demo import HUGGING, PICTURES
from training.miniworld.experiments.drawers import SEED, Drawing, draw
from training.miniworld.experiments.generate import BATCH
from training.miniworld.experiments.measure import Measurement, Predictions, classify
from training.miniworld.experiments.train_relation import train_relation
from training.miniworld.recipes.classifiers import load_shipped
from training.miniworld.world.triplets import evaluation_plans, write_triplets

RESULTS = Path(__file__).parent / "results" / "annotated_relation.json"
SENTENCES, BOXES, MASKS = ("prompt",), ("boxes",), ("masks",)
JOINTS = ("keypoints_target", "keypoints_concepts")
ROWS = {  # keys of a line that are annotate's
    "exact": (),
    "joints": JOINTS,
    "masks": MASKS,
    "boxes": BOXES,
    "sentences": SENTENCES,
    "all but sentences": (*BOXES, *MASKS, *JOINTS),
    "all": (*SENTENCES, *BOXES, *MASKS, *JOINTS),
}


def write_annotated(folder: Path) -> None:
    """Draw the demo's triplets into `folder/exact`, and write what annotate finds in them into `folder/annotated`.

    Raises:
        TrainingAborted: a triplet was rejected, so the rows would not learn from the same pictures.
    """
    exact, raw, annotated = (folder / name for name in ("exact", "raw", "annotated"))
    shutil.rmtree(folder, ignore_errors=True)
    write_triplets(exact, HUGGING.relation, HUGGING.triplets, seed=0)
    for number, line in enumerate(lines_of(exact)):
        home = raw / f"{number:03d}"
        home.mkdir(parents=True)
        stems = ("target", *(f"{place} {name}" for place, name in enumerate(line["names"], 1)))
        for stem, file in zip(stems, (line["target"], *line["concepts"]), strict=True):
            shutil.copyfile(file, home / f"{stem}.png")
    report = annotate(raw, annotated, AnnotateOptions(HUGGING.relation, backend="miniworld"))
    if len(report.accepted) < HUGGING.triplets:
        raise TrainingAborted(
            f"{len(report.accepted)} of {HUGGING.triplets} triplets were accepted; see {annotated / 'review.html'}"
        )


def lines_of(folder: Path) -> list[dict]:
    """Read a folder's triplets, with the paths of their pictures whole."""
    rows = []
    for line in map(json.loads, (folder / "triplets.jsonl").read_text(encoding="utf-8").splitlines()):
        whole = {key: [str(folder.resolve() / name) for name in line[key]] for key in ("concepts", "masks")}
        rows.append(line | whole | {"target": str(folder.resolve() / line["target"])})
    return rows


def drawn(
    out: Path, triplets: Path, keys: Sequence[str], seed: int, pictures: int, growth: float = 0.0
) -> torch.Tensor:
    """Learn a row's relation from exact lines, but for `keys`, and draw with it: (N, 3, 128, 128) in [0, 1]."""
    finished = out / f"seed{seed}" / f"{pictures}.npy"
    if finished.exists():
        return torch.from_numpy(np.load(finished)).float() / 255
    pairs = zip(lines_of(triplets / "exact"), lines_of(triplets / "annotated"), strict=True)
    rows = [exact | {key: annotated[key] for key in keys} for exact, annotated in pairs]
    write_text(out / "triplets" / "triplets.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    overrides = (
        *HUGGING.overrides,
        "samples.every=0",
        f"data.folder={out / 'triplets'}",
        f"identity.box_growth={growth}",
    )
    lora = train_relation(replace(HUGGING, overrides=overrides), finished.parent, seed=seed)
    starts = range(0, pictures, BATCH)
    drawings = [Drawing(HUGGING.relation, pictures, at, min(at + BATCH, pictures), lora) for at in starts]
    images = np.concatenate([draw(drawing)[0] for drawing in drawings])
    buffer = io.BytesIO()
    np.save(buffer, (images * 255).round().astype(np.uint8))
    atomic_write(finished, lambda path: path.write_bytes(buffer.getvalue()))
    return torch.from_numpy(images)


def count(out: Path, triplets: Path, keys: Sequence[str], seeds: int, pictures: int, growth: float = 0.0) -> dict:
    """Count a row over its seeds, each on the same scenes; also the relation's share in every seed."""
    judge, plans = load_shipped(), evaluation_plans(HUGGING.relation, pictures, SEED)
    parts = [classify(judge, drawn(out, triplets, keys, seed, pictures, growth), plans) for seed in range(seeds)]
    shares = [round(float(part.relation.mean()), 3) for part in parts]
    return Measurement.of(Predictions.joined(parts)).table() | {"seeds": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=of_type.path, default=Path("out/annotated"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=of_type.whole(), default=1, help="trainings of each row")
    parser.add_argument("--pictures", type=of_type.whole(), default=PICTURES, help="of each training")
    parser.add_argument("--growth", type=float, nargs="+", default=[0.0], help="identity.box_growth of each row")
    parser.add_argument(
        "--write", type=of_type.path, nargs="?", const=RESULTS, help="file whose rows are replaced or added to"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    triplets = args.out / "triplets"
    if not (triplets / "annotated" / "triplets.jsonl").exists():
        write_annotated(triplets)
    table = {}
    for row, growth in itertools.product(args.rows, args.growth):
        name = f"{row}, growth {growth:g}" if growth else row
        folder = args.out / name.replace(" ", "_").replace(",", "")
        table[name] = count(folder, triplets, ROWS[row], args.seeds, args.pictures, growth)
        shares = (f"{key} {100 * table[name][key]['value']:.1f}" for key in ("relation", "identity", "fused"))
        say(f"{name}: {', '.join(shares)}")
    if args.write:
        counted = json.loads(args.write.read_text(encoding="utf-8")) if args.write.exists() else {}
        write_text(args.write, json.dumps(counted | table, indent=1) + "\n")


if __name__ == "__main__":
    main()
