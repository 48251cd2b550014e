"""Which measures find a fault? True renders and the same scenes with one fault planted, measured side by side.

    python -m training.miniworld.experiments.planted_faults --out out/planted_faults

Faults: the two subjects swapped; one of them drawn twice; one missing; one with the other's looks; another relation
than the prompt says; the relation the wrong way round. A measure finds a fault if it prefers the honest picture of the
pair; ties count half, so 50 % is a measure that sees nothing. Written: table.md, facts.json, sheet.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...common import arguments as of_type
from ...common import stats
from ...common.atomic_io import write_text
from ...common.cli import command, say
from ...common.errors import all_or_faults
from ...common.sheets import save_picture
from ...evaluation.assignment.subjects import SubjectModels, measure_subjects
from ...evaluation.columns import COLUMNS
from ...evaluation.judge.accuracy import accuracy_text, measure_judge
from ...evaluation.judge.answers import Answers
from ...evaluation.judge.verdicts import judge_pictures
from ...evaluation.prompts import Entry
from ...evaluation.score_images import score_pictures
from ...host_diffusers.embedders import Embedder, load_clip, load_dino, load_image_encoder
from ..recipes.find_creatures import TraitEncoder, load_detector
from ..world.relations import PAIRS
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, draw_plan, portrait, stage
from ..world.triplets import plans_in_turn
from .planted_faults_report import FAULTS, HONEST, SIDE, labels_of, mean_rate, rates_text, sheet, table_text
from .yes_no_judge import DIRECTED, open_judge

SEED = 2000


def with_fault(plan: ScenePlan, fault: str, rng: np.random.Generator) -> ScenePlan | None:
    """Plant a fault in a scene; None where a scene cannot have it.

    Args:
        plan: two creatures.
        fault: one of FAULTS.
        rng: of the faults.
    """
    first, second = plan.cast
    if fault == "swapped":
        return replace(plan, cast=(second, first))
    if fault == "duplicate":
        return replace(plan, cast=(first, first))
    if fault == "missing":
        alone = draw_plan(rng, relation="standing next to", cast=plan.cast, backdrop=plan.backdrop)
        staging = replace(alone.staging, poses=plan.staging.poses[:1], order=(), props=())
        return replace(plan, cast=(first,), staging=staging)
    if fault == "bled":
        return replace(plan, cast=(first, replace(first, species=second.species)))
    if fault == "other relation":
        other = str(rng.choice([name for name in PAIRS if name != plan.relation]))
        return replace(plan, staging=stage(rng, other))
    if plan.relation not in DIRECTED:
        return None
    order = tuple((1 - index, layer) for index, layer in plan.staging.order)
    return replace(plan, staging=replace(plan.staging, poses=plan.staging.poses[::-1], order=order))


def build(folder: Path, scenes: int, seed: int) -> dict[str, list[Entry | None]]:
    """Draw the scenes of every kind: N lines each, None where a scene cannot have the fault."""
    entries: dict[str, list[Entry | None]] = {kind: [] for kind in (HONEST, *FAULTS)}
    for index, plan in enumerate(plans_in_turn(tuple(PAIRS), scenes, seed)):
        truth = render(plan, SIDE)
        references = []
        for subject, who in enumerate(plan.cast):
            rng = generator(seed, Stream.REFERENCE, index, subject)
            path = folder / "references" / f"{index:03d}-{subject}.png"
            save_picture(Image.fromarray(render(portrait(rng, who, plan.backdrop.place), 2 * SIDE).image), path)
            references.append(path)
        for kind in entries:
            rng = generator(seed, Stream.FAULT, index)
            variant = plan if kind == HONEST else with_fault(plan, kind, rng)
            if variant is None:
                entries[kind].append(None)
                continue
            path = folder / kind.replace(" ", "_") / f"{index:03d}.png"
            save_picture(Image.fromarray(render(variant, SIDE).image), path)
            entries[kind].append(
                Entry(
                    index + 1,
                    path,
                    plan.caption.prompt,
                    plan.relation,
                    tuple(references),
                    plan.caption.names,
                    boxes=tuple(map(tuple, truth.boxes.astype(float))),
                    symmetric=False if plan.relation in DIRECTED else None,
                )
            )
    return entries


def measure_all(
    entries: Sequence[Entry], clip: Embedder, second: Embedder, subjects: SubjectModels, answers: Answers
) -> list[dict[str, float | None]]:
    """Measure every picture with every measure; `second` gives the column "DINO", whatever encoder it is."""
    words = [entry.relation for entry in entries]
    rows = [dict(row) for row in score_pictures(entries, words, clip, second, 32)]
    subject_results = measure_subjects(entries, subjects)
    verdicts = judge_pictures(entries, words, answers, mirror=False)
    for row, own, verdict in zip(rows, subject_results.rows, verdicts):
        row |= own.measures.table() | {key: value for key, value in verdict.table().items() if key != "mass"}
    return rows


def preference(
    honest: Sequence[float | None], faulty: Sequence[float | None], higher_is_better: bool
) -> stats.Estimate | None:
    """Return the share of pairs in which a measure prefers the honest picture, ties half; None without values."""
    wins = []
    for first, second in zip(honest, faulty):
        if first is None and second is None:
            continue
        if first is None or second is None:  # a picture that cannot be measured (no subject assigned) loses
            wins.append(float(second is None))
        else:
            wins.append(0.5 if first == second else float((first > second) == higher_is_better))
    return stats.bootstrap_mean(wins) if wins else None


def preferences(rows: Mapping[str, Sequence[dict | None]]) -> dict[str, dict[str, stats.Estimate]]:
    """Measure to fault to share; measures of which neither direction is better are left out."""
    keys = [
        key
        for key, column in COLUMNS.items()
        if column.higher_is_better is not None and any(row.get(key) is not None for row in rows[HONEST])
    ]
    table: dict[str, dict[str, stats.Estimate]] = {}
    for key in keys:
        for fault in FAULTS:
            pairs = [(one.get(key), other.get(key)) for one, other in zip(rows[HONEST], rows[fault]) if other]
            share = preference(*zip(*pairs), COLUMNS[key].higher_is_better) if pairs else None
            if share is not None:
                table.setdefault(key, {})[fault] = share
    return dict(sorted(table.items(), key=lambda item: -mean_rate(item[1])))


def run(out: Path, scenes: int, seed: int = SEED, dino: str = "") -> dict[str, Sequence[dict | None]]:
    """Draw, measure, write; returns the rows by kind.

    Args:
        dino: a DINO of photographs; empty takes the miniworld's local encoder in its place, as this world has none.

    Raises:
        UserErrors: no such DINO.
    """
    # 1. open the models, and draw every scene honest and with each fault
    load, name = (load_dino, dino) if dino else (load_image_encoder, "miniworld-local")
    (second,) = all_or_faults(lambda: load(name, "cpu", torch.float32))
    say(f"drawing {scenes} scenes, honest and with {len(FAULTS)} faults")
    entries = build(out, scenes, seed)
    detector = load_detector()
    clip = load_clip("miniworld", "", "cpu", torch.float32)
    subjects, answers = SubjectModels(detector, TraitEncoder(detector.judges)), Answers(open_judge())

    # 2. measure kind by kind
    rows: dict[str, list[dict | None]] = {}
    for kind, own in entries.items():
        say(f"measuring {kind}")
        present = [entry for entry in own if entry]
        values = iter(measure_all(present, clip, second, subjects, answers) if present else ())
        rows[kind] = [next(values) if entry else None for entry in own]

    # 3. which measures prefer the honest picture, and how often the judge is right
    table = preferences(rows)
    accuracy, _ = measure_judge(labels_of(entries), answers)
    text = (
        f"{table_text(table, dino)}\nShare of {scenes} pairs in % [95 %: bootstrap over scenes] in which a measure "
        f"prefers the honest render; 50 is chance.\n\n{rates_text(rows)}\nDetector on renders it never saw: "
        + ", ".join(f"{name} {value:g}" for name, value in detector.accuracy.items())
        + f".\n\n{accuracy_text(accuracy)}"
    )
    write_text(out / "table.md", text)
    facts = {
        "scenes": scenes,
        "seed": seed,
        "dino": dino or None,
        "detector": detector.accuracy,
        "judge": accuracy.table(),
        "preferences": {key: {fault: asdict(one) for fault, one in row.items()} for key, row in table.items()},
    }
    write_text(out / "facts.json", json.dumps(facts, indent=1) + "\n")
    save_picture(sheet(entries), out / "sheet.png")
    say(f"{text}\nwrote table.md, facts.json and sheet.png to {out}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.miniworld.experiments.planted_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=of_type.path, default=Path("out/planted_faults"))
    parser.add_argument("--scenes", type=int, default=46, help="two of each of 23 relations")
    parser.add_argument("--dino", default="", help="also a DINO: a folder of transformers or a hub's owner/name")
    options = parser.parse_args(arguments)
    return command(lambda: run(options.out, options.scenes, dino=options.dino) and None)


if __name__ == "__main__":
    raise SystemExit(main())
