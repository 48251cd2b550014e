"""What can be known exactly in the miniworld: scenes with their plan written down, and pictures of them judged.

A plan (`training/miniworld/world/scene.py`) says who is drawn, in which pose and where; so boxes, keypoints and traits
of the right picture are known. The judges are classifiers that only ever saw renders; their own accuracy is stated
beside.
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
from ..recipes import classifiers as judges
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

_SIDE = 128  # pixels the judges look at
_BATCH = 64


def plan_of(facts: Mapping[str, Any]) -> ScenePlan:
    """A plan from what `dataclasses.asdict` wrote of it as JSON.

    Raises:
        KeyError, TypeError, ValueError: not a plan of two creatures of this world.
    """

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    def made(kind: type, part: Mapping[str, Any]) -> Any:
        return kind(**{key: frozen(value) for key, value in part.items()})

    staging = dict(facts["staging"])
    poses = tuple(made(Pose, pose) for pose in staging.pop("poses"))
    plan = ScenePlan(
        tuple(made(CreatureTraits, who) for who in facts["identities"]),
        facts["relation"],
        made(Staging, {**staging, "poses": poses}),
        made(Backdrop, facts["backdrop"]),
        made(Caption, facts["caption"]),
    )
    if plan.relation not in PAIRS or not len(plan.cast) == len(poses) == 2:
        raise ValueError("expected two creatures in one of the relations " + ", ".join(PAIRS))
    return plan


def facts_of(plan: ScenePlan) -> dict[str, Any]:
    """A plan for JSON; `plan_of` reads it again."""
    found = asdict(plan)
    return {"identities": found.pop("cast"), **found}


def plans_of(entries: Sequence[Entry]) -> list[ScenePlan]:
    """The plan of every line.

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


def classified(entries: Sequence[Entry]) -> tuple[Measurement, dict[str, float]]:
    """Relation and identity accuracy, confusion and keypoint error; and how often the judges are right on renders.

    Raises:
        UserErrors: lines without a plan.
        ValueError: a picture cannot be decoded; the judges are not there.
    """
    plans = plans_of(entries)
    jury, known = judges.load_shipped(), judges.shipped_accuracy()
    parts = []
    for start in range(0, len(plans), _BATCH):
        images = torch.stack(
            [
                to_tensor(open_image(entry.picture).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
                for entry in entries[start : start + _BATCH]
            ]
        )
        parts.append(classify(jury, images, list(plans[start : start + _BATCH])))
    return Measurement.of(Predictions.joined(parts)), known


def facts(found: Measurement, known: Mapping[str, float]) -> dict[str, Any]:
    """Shares between 0 and 1 with their intervals, for JSON."""
    return {**found.table(), "judges_on_renders": dict(known)}


def exact_text(found: Measurement, known: Mapping[str, float]) -> str:
    """The exact scores as Markdown, in percent with 95 % intervals."""
    right = ", ".join(f"{name} {100 * value:.1f}" for name, value in known.items() if name != "keypoint_error")
    lines = [
        "| | pictures | relation happens | traits right | subjects with all right | drawn with the other's looks | "
        "keypoints off, of a box side |",
        "|---" * 7 + "|",
        f"| exact, in % | {found.relation.trials} | {found.relation} | {found.identity} | {found.whole} | "
        f"{found.confusion} | {found.keypoints} |",
        "",
        f"Judges on renders they never saw: {right} % right; keypoints off by {100 * known['keypoint_error']:.1f}.",
    ]
    return "\n".join(lines) + "\n"


def write_scenes(folder: Path, relation: str, count: int, seed: int) -> None:
    """A prompts file with plans, and the references: creatures no training has seen, in other poses and places.

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
        drawn, rng = render(plan, _SIDE), generator(seed, Stream.REFERENCE, index)
        save_picture(Image.fromarray(drawn.image), folder / "truth" / f"{index:04d}.png")
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
                    "boxes": np.round(drawn.boxes, 4).tolist(),
                    "plan": facts_of(plan),
                    **({"symmetric": False} if relation in DIRECTED else {}),
                }
            )
        )
    write_text(file, "\n".join(lines) + "\n")
