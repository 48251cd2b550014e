"""What annotation costs a relation: the demo's, learnt from exact triplets and from the same pictures annotated.

    python -m tests.bench.annotated_relation --out out/annotated         some eight minutes of two cores

The triplets of `make demo` are drawn; `training.annotate` gets their pictures alone and finds names, boxes, masks and
joints by the miniworld's own detector and classifiers. Both relations are learnt by the demo's recipe, counted on the
demo's pictures; a finished part is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from training.annotate import annotate
from training.annotation.options import AnnotateOptions
from training.common.cli import TrainingAborted, say
from training.miniworld.experiments import demo
from training.miniworld.world.triplets import write_triplets

RESULTS = Path(__file__).parent / "results" / "annotated_relation.json"


def write_annotated(folder: Path, relation: str, count: int, seed: int) -> None:
    """Draw the demo's triplets, keep their pictures, and write what `annotate` finds in them into `folder`.

    Raises:
        TrainingAborted: a triplet was rejected, so the two relations would not learn from the same pictures.
    """
    exact, raw = folder.with_name("exact"), folder.with_name("raw")
    for old in (exact, raw, folder):
        shutil.rmtree(old, ignore_errors=True)
    write_triplets(exact, relation, count, seed)
    lines = (exact / "triplets.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(map(json.loads, lines)):
        home = raw / f"{number:03d}"
        home.mkdir(parents=True)
        stems = ("target", *(f"{place} {name}" for place, name in enumerate(line["names"], 1)))
        for stem, file in zip(stems, (line["target"], *line["concepts"]), strict=True):
            shutil.copyfile(exact / file, home / f"{stem}.png")
    report = annotate(raw, folder, AnnotateOptions(relation, backend="miniworld"))
    if len(report.accepted) < count:
        raise TrainingAborted(f"{len(report.accepted)} of {count} triplets were accepted; see {folder / 'review.html'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/annotated"))
    parser.add_argument("--write", type=Path, nargs="?", const=RESULTS, help="where the numbers go")
    args = parser.parse_args()
    annotated = args.out / "triplets" / "annotated"
    if not (annotated / "triplets.jsonl").exists():
        write_annotated(annotated, demo.HUGGING.relation, demo.HUGGING.triplets, seed=0)
    changed = replace(demo.HUGGING, overrides=(*demo.HUGGING.overrides, f"data.folder={annotated}"))
    found = {}
    for name, recipe in (("exact", demo.HUGGING), ("annotated", changed)):
        say(f"{name} triplets")
        demo.run(args.out / name, recipe)
        found[name] = json.loads((args.out / name / "report.json").read_text(encoding="utf-8"))["with"]
    if args.write:
        args.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
