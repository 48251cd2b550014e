"""The paper's data engine with perfect annotation: a target, and its subjects in other poses on other backdrops.

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
from .scene import ScenePlan, draw_plan, portrait


def write_triplets(
    folder: Path,
    relation: str,
    count: int,
    seed: int,
    size: int = 128,
    copy_paste: bool = False,
    held_out: bool | None = False,
) -> list[ScenePlan]:
    """Draws triplets of one relation.

    Args:
        folder: receives `triplets.jsonl` and the pictures.
        relation: a key of PAIRS, SOLOS or TRIOS.
        count: how many; the paper uses 5.
        seed: of every draw.
        size: pixels a side.
        copy_paste: crop the concepts from the target instead of drawing them anew.
        held_out: which identities, see `draw_identity`.
    Returns:
        The plans of the targets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans, lines = [], []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        plan = draw_plan(rng, relation=relation, held_out=held_out)
        target = render(plan, size)
        if copy_paste:
            concepts = [_cropped(target, subject, size) for subject in range(len(plan.identities))]
        else:
            concepts = [render(portrait(rng, who, plan.backdrop.place), size) for who in plan.identities]
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


def _cropped(target: Render, subject: int, size: int) -> Render:
    """A subject cut from the target with what surrounds it, stretched to a square, its keypoints moved along."""
    x0, y0, x1, y1 = (float(edge) for edge in target.boxes[subject])
    area = tuple(round(edge * size) for edge in (x0, y0, x1, y1))
    image = Image.fromarray(target.image).crop(area).resize((size, size), Image.Resampling.BICUBIC)
    mask = Image.fromarray(target.masks[subject]).crop(area).resize((size, size), Image.Resampling.NEAREST)
    keypoints = target.keypoints[subject].copy()
    keypoints[:, 0] = (keypoints[:, 0] - x0) / (x1 - x0)
    keypoints[:, 1] = (keypoints[:, 1] - y0) / (y1 - y0)
    return Render(np.asarray(image), np.asarray(mask)[None], np.array([[0, 0, 1, 1]], np.float32), keypoints[None])


def evaluation_plans(relation: str, count: int, seed: int, held_out: bool | None = True) -> list[ScenePlan]:
    """Scenes to ask a model for: identities it never saw, the plainest wording, layouts as the renderer draws them."""
    plans = []
    for index in range(count):
        rng = np.random.default_rng((seed, 7, index))
        plan = draw_plan(rng, relation=relation, held_out=held_out)
        names = tuple(who.species for who in plan.identities)
        prompt = plain_prompt(relation, names, plan.backdrop.place)
        plans.append(replace(plan, caption=replace(plan.caption, prompt=prompt)))
    return plans
