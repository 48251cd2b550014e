"""make demo: learn a relation that the miniworld has never seen from five triplets, draw new creatures in it, count.

Everything runs on one thread, and processes beside it draw (`drawers`).
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...common.atomic_io import write_text
from ...common.cli import clock, say
from ...common.sheets import FAINT, INK, PAPER, font, save_picture
from ..recipes import classifiers
from ..recipes.pictures import to_uint8
from ..world.renderer import render
from ..world.scene import ScenePlan
from ..world.triplets import evaluation_plans
from .drawers import SEED, Drawing, draw, drawers
from .generate import BATCH, SAMPLING_STEPS, request_of
from .measure import Measurement, measure, renders
from .train_relation import AblationVariant, base_digest, relation_file, train_relation

PICTURES, SHOWN = 32, 6
_SIDE, _GAP, _MARGIN = 160, 6, 150
STEPS = 500
# samples are drawn once, for the file's thumbnail: the sheet shows more than samples during training would
HUGGING = AblationVariant(overrides=(f"train.steps={STEPS}", f"samples.every={STEPS}"))


@dataclass(frozen=True, eq=False)
class Outcome:
    """Pictures and scores of the demo.

    Attributes:
        relation: learnt.
        plans: of the pictures, each drawn twice.
        without, with_lora: (B, 3, 128, 128) in [0, 1], from the same seeds.
        before, after: their scores.
        bound: the scores of the same scenes as the renderer draws them.
        seconds: of one process each, by what they were spent on; no learning where an earlier call has done it.
    """

    relation: str
    plans: list[ScenePlan]
    without: Tensor
    with_lora: Tensor
    before: Measurement
    after: Measurement
    bound: Measurement
    seconds: dict[str, float]


def run(
    out: Path, recipe: AblationVariant = HUGGING, pictures: int = PICTURES, again: str = "", workers: int = 1
) -> Outcome:
    """Learn, draw, count; write `sheet.png`, `<relation>.safetensors`, `report.md` and `report.json` into `out`.

    A second call takes the relation that the first one learnt, if the miniworld's weights are still the same.

    Args:
        out: receives everything.
        recipe: relation and settings of the training.
        pictures: drawn without and with the relation.
        again: the command that makes this call, for messages.
        workers: processes at once.
    """
    say(f"1 of 3: learning '{recipe.relation}' from {recipe.triplets} triplets; the base has never seen it")
    torch.set_num_threads(1)
    _forget_other_bases(out)
    learnt_before, seconds = relation_file(out / "work").exists(), {}
    with drawers(workers) as pool:
        whole = Drawing(recipe.relation, pictures, 0, pictures, None)
        early = None if pool is None else pool.apply_async(draw, (whole,))  # while the relation is learnt
        began = time.monotonic()
        lora = train_relation(recipe, out / "work", seed=0, again=again)
        if not learnt_before:
            seconds["learning"] = time.monotonic() - began
        shutil.copyfile(lora, out / f"{recipe.relation.replace(' ', '_')}.safetensors")
        say(f"2 of 3: drawing {pictures} pictures of unseen identities without the relation")
        without, seconds["drawing without"] = draw(whole) if early is None else early.get()
        say(f"3 of 3: drawing {pictures} pictures of unseen identities with the relation")
        parts = [
            Drawing(recipe.relation, pictures, start, min(start + BATCH, pictures), lora)
            for start in range(0, pictures, BATCH)
        ]
        batches = []
        for images, spent in (map if pool is None else pool.imap)(draw, parts):
            batches.append(images)
            seconds["drawing with"] = seconds.get("drawing with", 0.0) + spent
            say(f"  {sum(map(len, batches))} of {pictures}")
    plans, judge = evaluation_plans(recipe.relation, pictures, SEED), classifiers.load_shipped()
    sides = torch.from_numpy(without), torch.from_numpy(np.concatenate(batches))
    scores = [measure(judge, images, plans) for images in (*sides, renders(plans))]
    outcome = Outcome(recipe.relation, plans, *sides, *scores, seconds)
    save_picture(sheet(outcome), out / "sheet.png")
    write_text(out / "report.md", report(outcome, recipe))
    write_text(out / "report.json", json.dumps(facts(outcome), indent=1) + "\n")
    say(f"\n{table(outcome)}\n\nwrote {out / 'sheet.png'}, {out / 'report.md'} and the LoRA")
    return outcome


def table(outcome: Outcome) -> str:
    """Write the scores, before and after, in percent with 95 % intervals, as Markdown."""
    rows = [
        (f"'{outcome.relation}' is seen", "relation"),
        ("traits as in the references", "identity"),
        ("all five traits right", "whole"),
        ("drawn with the other one's looks", "confusion"),
        ("bodies fused", "fused"),
    ]
    lines = ["| % (95 % interval) | without | with the relation | the renderer's own |", "| --- | --- | --- | --- |"]
    columns = (outcome.before, outcome.after, outcome.bound)
    lines += [f"| {name} | {' | '.join(str(getattr(column, key)) for column in columns)} |" for name, key in rows]
    return "\n".join(lines)


def report(outcome: Outcome, recipe: AblationVariant) -> str:
    """Write the report: one page of Markdown."""
    accuracy = classifiers.shipped_accuracy()
    accuracies = ", ".join(f"{name} {100 * value:.1f}" for name, value in accuracy.items() if name != "keypoint_error")
    spent = "" if "learning" in outcome.seconds else "learning in an earlier call, "
    spent += ", ".join(f"{name} {clock(value)}" for name, value in outcome.seconds.items())
    picture = outcome.seconds["drawing with"] / len(outcome.plans)
    return f"""# '{outcome.relation}', learnt from {recipe.triplets} triplets

![without and with the relation](sheet.png)

{table(outcome)}

{len(outcome.plans)} pictures of identities that neither the base nor the relation was trained on; the same prompts,
references, boxes and noise without and with it; {SAMPLING_STEPS} DDIM steps, guidance 4, image branch at 0.6. Counted
by classifiers that have only ever seen renders, planted fused bodies among them: a fused hug counts as none. The last
column is what they make of the same scenes drawn by the renderer. On renders they never saw they are right in % of
cases: {accuracies}.

Time of one process each: {spent}; one picture {picture:.1f} s.

The relation: `{outcome.relation.replace(" ", "_")}.safetensors`. In ComfyUI it goes to `models/loras`; the graph is
`workflows/miniworld_two_subjects_relation.json`.
"""


def facts(outcome: Outcome) -> dict:
    """Return the same for JSON."""
    return {
        "relation": outcome.relation,
        "pictures": len(outcome.plans),
        "without": outcome.before.table(),
        "with": outcome.after.table(),
        "renders": outcome.bound.table(),
        "seconds": {name: round(value, 1) for name, value in outcome.seconds.items()},
        "judges": classifiers.shipped_accuracy(),
    }


def sheet(outcome: Outcome, count: int = SHOWN) -> Image.Image:
    """Draw one column per scene: its two references, without, with, and how the renderer draws it."""
    requests = [request_of(plan, SEED, index) for index, plan in enumerate(outcome.plans[:count])]
    rows = {
        "first reference": pixels_of([request.references[0] for request in requests]),
        "second reference": pixels_of([request.references[1] for request in requests]),
        "without": to_uint8(outcome.without[:count]),
        f"with '{outcome.relation}'": to_uint8(outcome.with_lora[:count]),
        "the renderer's": [render(plan, _SIDE).image for plan in outcome.plans[:count]],
    }
    width = _MARGIN + len(requests) * (_SIDE + _GAP)
    picture = Image.new("RGB", (width, 44 + len(rows) * (_SIDE + _GAP)), PAPER)
    pen = ImageDraw.Draw(picture)
    before, after = outcome.before.relation, outcome.after.relation
    pen.text(
        (10, 12),
        f"'{outcome.relation}': seen in {before} % of pictures without, {after} % with the relation",
        INK,
        font(17),
    )
    for row, (title, images) in enumerate(rows.items()):
        top = 44 + row * (_SIDE + _GAP)
        pen.text((10, top + _SIDE // 2 - 8), title, INK, font(14))
        pen.line((0, top - _GAP // 2, width, top - _GAP // 2), FAINT)
        for column, image in enumerate(images):
            tile = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            picture.paste(tile, (_MARGIN + column * (_SIDE + _GAP), top))
    return picture


def pixels_of(images: list[Tensor]) -> list[np.ndarray]:
    return [to_uint8(image[None])[0] for image in images]


def _forget_other_bases(out: Path) -> None:
    """Delete a relation learnt on other weights, so that it is learnt again."""
    present = base_digest()
    stamp = out / "work" / "base.sha256"
    if stamp.exists() and stamp.read_text(encoding="utf-8") != present:
        shutil.rmtree(out / "work")
    write_text(stamp, present)
