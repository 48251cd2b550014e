"""Exact scores in the miniworld: write scenes with their plans, and classify pictures of them.

A plan (`training/miniworld/world/scene.py`) holds the creatures, their poses and places; so it gives boxes, keypoints
and traits of the right picture. The classifiers only ever saw renders; their own accuracy is stated beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...common.atomic_io import write_text
from ...common.errors import UserErrors
from ...common.image_files import open_image, to_tensor
from ...common.sheets import save_picture
from ...evaluation.prompts import Entry
from ..recipes import classifiers
from ..world.backdrop import Backdrop
from ..world.captions import Caption
from ..world.pose import Pose
from ..world.relations import PAIRS
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, portrait
from ..world.staging import Staging
from ..world.traits import CreatureTraits
from ..world.triplets import evaluation_plans
from .measure import Measurement, Predictions, classify
from .yes_no_judge import DIRECTED

_SIDE = 128  # pixels of the classifiers' input
_BATCH = 64


def plan_of(facts: Mapping[str, Any]) -> ScenePlan:
    """Read a plan from the JSON of its `dataclasses.asdict`.

    Raises:
        KeyError, TypeError, ValueError: not a plan of two creatures of this world.
    """

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    def build(kind: type, part: Mapping[str, Any]) -> Any:
        return kind(**{key: frozen(value) for key, value in part.items()})

    staging = dict(facts["staging"])
    poses = tuple(build(Pose, pose) for pose in staging.pop("poses"))
    plan = ScenePlan(
        tuple(build(CreatureTraits, who) for who in facts["identities"]),
        facts["relation"],
        build(Staging, {**staging, "poses": poses}),
        build(Backdrop, facts["backdrop"]),
        build(Caption, facts["caption"]),
    )
    if plan.relation not in PAIRS or not len(plan.cast) == len(poses) == 2:
        raise ValueError("expected two creatures in one of the relations " + ", ".join(PAIRS))
    return plan


def facts_of(plan: ScenePlan) -> dict[str, Any]:
    """Return a plan for JSON; `plan_of` reads it again."""
    fields = asdict(plan)
    return {"identities": fields.pop("cast"), **fields}


def plans_of(entries: Sequence[Entry]) -> list[ScenePlan]:
    """Read the plan of every line.

    Raises:
        UserErrors: lines without one, or with one that is not of this world.
    """
    plans, faults = [], []
    for entry in entries:
        try:
            plans.append(plan_of(entry.plan))
        except (KeyError, TypeError, ValueError) as error:
            what = "no 'plan'" if not entry.plan else f"'plan' cannot be read ({error})"
            faults.append(
                f"line {entry.line}: {what}. --exact needs lines as python -m training.evaluate miniworld writes them."
            )
    if faults:
        raise UserErrors(faults)
    return plans


def measure_entries(entries: Sequence[Entry]) -> tuple[Measurement, dict[str, float]]:
    """Measure relation, identity, confusion and keypoint error; also the classifiers' accuracy on renders.

    Raises:
        UserErrors: lines without a plan.
        ValueError: a picture cannot be decoded; the classifiers are missing.
    """
    plans = plans_of(entries)
    judge, accuracy = classifiers.load_shipped(), classifiers.shipped_accuracy()
    parts = []
    for start in range(0, len(plans), _BATCH):
        pictures = [open_image(entry.picture) for entry in entries[start : start + _BATCH]]
        sized = [to_tensor(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)) for picture in pictures]
        parts.append(classify(judge, torch.stack(sized), plans[start : start + _BATCH]))
    return Measurement.of(Predictions.joined(parts)), accuracy


def facts(measurement: Measurement, accuracy: Mapping[str, float]) -> dict[str, Any]:
    """Return shares between 0 and 1 with their intervals, for JSON."""
    return {**measurement.table(), "judges_on_renders": dict(accuracy)}


def exact_text(measurement: Measurement, accuracy: Mapping[str, float]) -> str:
    """Write the exact scores as Markdown, in percent with 95 % intervals."""
    right = ", ".join(f"{name} {100 * value:.1f}" for name, value in accuracy.items() if name != "keypoint_error")
    lines = [
        "| | pictures | relation happens | traits right | subjects with all right | drawn with the other's looks | "
        "keypoints off, of a box side |",
        "|---" * 7 + "|",
        f"| exact, in % | {measurement.relation.trials} | {measurement.relation} | {measurement.identity} | "
        f"{measurement.whole} | {measurement.confusion} | {measurement.keypoints} |",
        "",
        f"Judges on renders they never saw: {right} % right; keypoints off by {100 * accuracy['keypoint_error']:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def write_scenes(folder: Path, relation: str, count: int, seed: int) -> None:
    """Write a prompts file with plans, and references: unseen creatures in other poses and places.

    Args:
        folder: receives `prompts.jsonl`, `references/` and `truth/` (the renders, which get the best scores).
        relation: a key of PAIRS.
        count: scenes.
        seed: of them.

    Raises:
        UserErrors: no such relation; the file exists.
    """
    file = folder / "prompts.jsonl"
    if relation not in PAIRS:
        raise UserErrors(f"--relation {relation}: expected one of {', '.join(PAIRS)}.")
    if file.exists():
        raise UserErrors(f"{file} exists; choose a folder that has none, so that nothing is overwritten.")
    lines = []
    for index, plan in enumerate(evaluation_plans(relation, count, seed)):
        truth, rng = render(plan, _SIDE), generator(seed, Stream.REFERENCE, index)
        save_picture(Image.fromarray(truth.image), folder / "truth" / f"{index:04d}.png")
        references = [f"references/{index:04d}-{subject}.png" for subject in range(len(plan.cast))]
        for path, who in zip(references, plan.cast):
            alone = render(portrait(rng, who, plan.backdrop.place), 2 * _SIDE)
            save_picture(Image.fromarray(alone.image), folder / path)
        lines.append(
            json.dumps(
                {
                    "picture": f"{index:04d}.png",
                    "prompt": plan.caption.prompt,
                    "relation": relation,
                    "references": references,
                    "names": list(plan.caption.names),
                    "seed": seed,
                    "boxes": np.round(truth.boxes, 4).tolist(),
                    "plan": facts_of(plan),
                    **({"symmetric": False} if relation in DIRECTED else {}),
                }
            )
        )
    write_text(file, "\n".join(lines) + "\n")
