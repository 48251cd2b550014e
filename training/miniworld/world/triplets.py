"""Write triplets with perfect annotation: a target, and its subjects in other poses on other backdrops.

Written in the pack's own layout (`triplets.jsonl`). `copy_paste` is the ablation: concepts cropped from the target, the
data that teaches a model to copy (DreamRelation arXiv:2410.23280, section 3.2).
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from .captions import plain_prompt
from .renderer import Render, render
from .rng_streams import Stream, generator
from .scene import ScenePlan, draw_plan, portrait
from .traits import LOOK_ALIKES

PORTRAIT_SCALE = 2  # photographs are twice as large as scenes, as those that the models are trained on


def write_triplets(
    folder: Path,
    relation: str,
    count: int,
    seed: int,
    size: int = 128,
    copy_paste: bool = False,
    held_out: bool | None = False,
) -> list[ScenePlan]:
    """Draw triplets of one relation.

    Args:
        folder: receives `triplets.jsonl` and the pictures.
        relation: a key of PAIRS, SINGLES or TRIOS.
        count: how many; the paper uses 5.
        seed: of every draw.
        size: pixels along each side of a target.
        copy_paste: crop the concepts from the target instead of drawing them anew.
        held_out: which identities, see `draw_traits`.

    Returns:
        The plans of the targets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans, lines = [], []
    for index in range(count):
        rng = generator(seed, Stream.TRIPLET, index)
        plan = draw_plan(rng, relation=relation, held_out=held_out)
        target = render(plan, size)
        if copy_paste:
            concepts = [cropped(target, subject, size) for subject in range(len(plan.cast))]
        else:
            portraits = [portrait(rng, traits, plan.backdrop.place) for traits in plan.cast]
            concepts = [render(each, PORTRAIT_SCALE * size) for each in portraits]
        lines.append(json.dumps(_write(folder, index, plan, target, concepts)))
        plans.append(plan)
    (folder / "triplets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return plans


def _write(folder: Path, index: int, plan: ScenePlan, target: Render, concepts: list[Render]) -> dict:
    def picture(name: str, pixels: np.ndarray) -> str:
        Image.fromarray(pixels).save(folder / f"{index:02d}_{name}.png")
        return f"{index:02d}_{name}.png"

    return {
        "target": picture("target", target.image),
        "concepts": [picture(f"concept{i}", concept.image) for i, concept in enumerate(concepts)],
        "masks": [picture(f"mask{i}", mask.astype(np.uint8) * 255) for i, mask in enumerate(target.masks)],
        "prompt": plan.caption.prompt,
        "relation": plan.caption.predicate,
        "names": list(plan.caption.names),
        "boxes": np.round(target.boxes, 5).tolist(),
        "keypoints_target": np.round(target.keypoints, 5).tolist(),
        "keypoints_concepts": [np.round(concept.keypoints[0], 5).tolist() for concept in concepts],
    }


def cropped(target: Render, subject: int, size: int) -> Render:
    """Cut a subject from the target with its surroundings, stretched to a square, its keypoints moved along."""
    x0, y0, x1, y1 = (float(edge) for edge in target.boxes[subject])
    area = tuple(round(edge * size) for edge in (x0, y0, x1, y1))
    image = Image.fromarray(target.image).crop(area).resize((size, size), Image.Resampling.BICUBIC)
    mask = Image.fromarray(target.masks[subject]).crop(area).resize((size, size), Image.Resampling.NEAREST)
    keypoints = target.keypoints[subject].copy()
    keypoints[:, 0] = (keypoints[:, 0] - x0) / (x1 - x0)
    keypoints[:, 1] = (keypoints[:, 1] - y0) / (y1 - y0)
    return replace(
        target,
        image=np.asarray(image),
        masks=np.asarray(mask)[None],
        boxes=np.array([[0, 0, 1, 1]], np.float32),
        keypoints=keypoints[None],
    )


def evaluation_plans(relation: str, count: int, seed: int) -> list[ScenePlan]:
    """Plan evaluation scenes: identities never seen, the plainest wording, boxes as the renderer draws them."""
    return [_evaluation_plan(relation, seed, index, held_out=True) for index in range(count)]


def plans_in_turn(relations: tuple[str, ...], count: int, seed: int) -> list[ScenePlan]:
    """Plan scenes as `evaluation_plans` does, relations in turn."""
    return [evaluation_plans(relations[index % len(relations)], 1, seed + index)[0] for index in range(count)]


def look_alike_plans(relation: str, count: int, seed: int) -> list[ScenePlan]:
    """Plan scenes of the held-out pair that differs in its emblems alone, either of them first."""
    casts = (LOOK_ALIKES[:: 1 if index % 2 else -1] for index in range(count))
    return [_evaluation_plan(relation, seed, index, cast=cast) for index, cast in enumerate(casts)]


def _evaluation_plan(relation: str, seed: int, index: int, **who: object) -> ScenePlan:
    plan = draw_plan(generator(seed, Stream.EVALUATION, index), relation=relation, **who)
    prompt = plain_prompt(relation, tuple(traits.species for traits in plan.cast), plan.backdrop.place)
    return replace(plan, caption=replace(plan.caption, prompt=prompt))
