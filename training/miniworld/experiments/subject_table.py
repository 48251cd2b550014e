"""What each part of a subject adapter brings, counted in the miniworld: one creature and two, beside MS-Diffusion.

A row's pictures are of held-out creatures, the same scenes, references and seeds in every row; a finished cell is a
file, and the same command goes on with what is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...common.atomic_io import write_text
from ...common.cli import TrainingAborted
from ...common.image_files import open_image, to_tensor
from ...common.stats import bootstrap_ratio, wilson
from ...config.subject import AdapterConfig, SubjectConfig, load_subject_config
from ...data.subject_cache import EncodedSubjects, encode_subjects, rows_of
from ...data.subject_prompts import prompt_rows
from ...data.subject_sources import load_scenes
from ...engine.subject_objective import SubjectObjective
from ...engine.subject_pictures import draw_subjects
from ...host_diffusers.fused_text import FusedText, PromptTokens
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from ...host_diffusers.subject import put_on
from ...host_diffusers.subject_base import SubjectModels, open_subject_models
from ..recipes.classifiers import Classifiers, crop_boxes, load_shipped
from ..recipes.denoiser import STRENGTH
from ..recipes.labelled_scenes import LOOKS, RELATIONS, TRAITS, trait_row
from ..recipes.pictures import to_tensor as stacked
from ..world.relations import SEEN
from ..world.renderer import render
from ..world.scene import ScenePlan
from ..world.single_and_group_poses import SINGLES
from ..world.triplets import write_triplets
from .generate import Request, generate
from .sheets import beside
from .subject_training import CONFIG, VARIANTS, adapter_file, merged_lines, opened_gates, overrides_of

PICTURES, SEED, BATCH = 216, 5000, 6
ONE, TWO = "1", "2"  # creatures of a cell
OTHERS = ("renders", "base alone", "MS-Diffusion branch")
ROWS = (*OTHERS, *VARIANTS)
CPU = torch.device("cpu")
# a file's, whatever trained it
_FILE_SETTINGS = ("max_subjects", "placeholder", "coordinates", "locate_single", "fused_words")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scenes of one or two held-out creatures, drawn and encoded.

    Attributes:
        plans: of the scenes; folder: their triplets.
        truth: (N, 3, 128, 128), as the renderer draws them.
        config: of the recipe, on these triplets; models: of the base.
    """

    plans: list[ScenePlan]
    folder: Path
    truth: Tensor
    config: SubjectConfig
    models: SubjectModels


def evaluation_of(models: Path, out: Path, subjects: int, pictures: int) -> Evaluation:
    """Draw the scenes once; the same seed gives the same scenes."""
    kinds = SEEN if subjects == 2 else tuple(SINGLES)
    each = -(-pictures // len(kinds))
    folder = out / f"scenes_{subjects}_{each}"
    plans, lines = [], []
    for number, relation in enumerate(kinds):
        own = folder / relation.replace(" ", "_")
        plans += write_triplets(own, relation, each, SEED + number, held_out=True)
        lines += merged_lines(own)
    plans, lines = plans[:pictures], lines[:pictures]
    write_text(folder / "triplets.jsonl", "\n".join(lines) + "\n")
    overrides = [f"data.folder={json.dumps(folder.as_posix())}"]
    config = load_subject_config(CONFIG, overrides_of(models, out, "full", overrides))
    truth = stacked([render(plan).image for plan in plans])
    return Evaluation(plans, folder, truth, config, open_subject_models(config.models))


def count(
    models: Path,
    out: Path,
    pictures: int = PICTURES,
    rows: Sequence[str] = ROWS,
    steps: int = 30,
    minutes: float = 600.0,
) -> Iterator[str]:
    """Fill in what is missing of every row, for one and for two creatures; yields lines of progress.

    Args:
        models: a folder laid out as `models/miniworld`, with its classifiers.
        out: of `train`; receives `counted/`.
        pictures: of every cell; 216 in the paper's tables of the miniworld.
        rows: of ROWS. Variants whose adapter is not trained yet are left out, and named.
        steps: of the sampler.
        minutes: no new cell is begun after these.

    Raises:
        TrainingAborted: `out` holds what was counted on other models or with other settings.
    """
    began, world, judges = time.monotonic(), load_miniworld(models), load_shipped(models)
    for subjects in (1, 2):
        scenes = evaluation_of(models, out, subjects, pictures)
        made_of = {"models": scenes.models.fingerprint(), "pictures": pictures, "steps": steps}
        for row in rows:
            cell = _cell(out, row, str(subjects))
            if row in VARIANTS and not adapter_file(out, row).exists():
                yield f"{row}, {subjects}: its adapter is not trained yet"
                continue
            if cell.exists():
                _check(cell, made_of)
                continue
            if time.monotonic() - began > 60 * minutes:
                yield "the time is over; the same command goes on with the missing cells"
                return
            images = drawn(row, world, scenes, out, steps)
            counted = tally(judges, images, scenes.plans)
            cell.parent.mkdir(parents=True, exist_ok=True)
            beside(scenes.truth[:36], images[:36]).save(cell.with_suffix(".png"))
            write_text(cell, json.dumps({**made_of, **counted}, indent=1) + "\n")
            yield f"{row}, {subjects}: {counted}"


def _cell(out: Path, row: str, subjects: str) -> Path:
    return out / "counted" / f"{row.replace(' ', '_')}-{subjects}.json"


def _check(cell: Path, made_of: dict) -> None:
    facts = json.loads(cell.read_text(encoding="utf-8"))
    if any(facts.get(key) != value for key, value in made_of.items()):
        raise TrainingAborted(
            f"{cell}: counted on other models, or with other settings. Choose another --out, or move it away."
        )


@torch.no_grad()
def drawn(row: str, world: Miniworld, scenes: Evaluation, out: Path, steps: int) -> Tensor:
    """A row's pictures, (N, 3, 128, 128) in [0, 1]."""
    if row == "renders":
        return scenes.truth
    starts = range(0, len(scenes.plans), BATCH)
    if row in OTHERS:
        strength = STRENGTH if row == "MS-Diffusion branch" else 0.0
        requests = _requests(scenes)
        return torch.cat(
            [generate(world, requests[at : at + BATCH], SEED + at, steps, strength=strength) for at in starts]
        )
    adapter, _, take_off = put_on(world.unet, adapter_file(out, row))
    settings_of_file = {name: getattr(adapter.config, name) for name in _FILE_SETTINGS}
    config = scenes.config.model_copy(
        update={"adapter": AdapterConfig(**settings_of_file, location=adapter.config.input_channels > 0)}
    )
    tokens = PromptTokens.of_base(scenes.models.base, config.adapter.placeholder)
    text = FusedText(scenes.models.base.text(torch.float32), tokens)
    objective = SubjectObjective(world.unet, adapter, text, scenes.models.base.schedule, config, torch.float32)
    data = encoded(scenes, config, tokens)
    try:
        pictures = []
        for at in starts:
            number = min(BATCH, len(data) - at)
            batch = data.take(torch.arange(at, at + number), torch.zeros(number, dtype=torch.long))
            settings = config.samples.model_copy(update={"seed": SEED + at, "steps": steps})
            pictures.append(world.to_images(draw_subjects(objective, batch, settings, "leading")))
        return torch.cat(pictures)
    finally:
        take_off()
        world.unet.eval().requires_grad_(False)


def encoded(scenes: Evaluation, config: SubjectConfig, tokens: PromptTokens) -> EncodedSubjects:
    """The scenes as training would read them: the whole picture, each creature's own photograph."""
    rows = rows_of(load_scenes(config.data, config.adapter, config.train.seed), config)
    prompts = prompt_rows([scene for scene, _ in rows], tokens, config.adapter)
    return encode_subjects(rows, prompts, config, scenes.models, CPU, torch.float32, lambda text: None)


def _requests(scenes: Evaluation) -> list[Request]:
    lines = (scenes.folder / "triplets.jsonl").read_text(encoding="utf-8").splitlines()
    requests = []
    for line in map(json.loads, lines):
        references = torch.stack([to_tensor(open_image(scenes.folder / name)) for name in line["concepts"]])
        requests.append(Request(line["prompt"], tuple(line["names"]), references, torch.tensor(line["boxes"])))
    return requests


@torch.no_grad()
def tally(judges: Classifiers, images: Tensor, plans: list[ScenePlan]) -> dict[str, str]:
    """Shares in percent with 95 % intervals, of pictures of one or two creatures.

    Traits are looked for in the box that was asked for, so a creature in another place counts as wrong.
    """
    subjects, ones = len(plans[0].cast), np.ones(len(plans))
    boxes = torch.from_numpy(np.stack([render(plan).boxes for plan in plans]))
    targets = torch.tensor([[trait_row(traits) for traits in plan.cast] for plan in plans])
    logits, _ = judges.identity(crop_boxes(images, boxes)[0])
    predictions = torch.stack([logits[name].argmax(1) for name in TRAITS], dim=1).unflatten(0, (len(plans), subjects))
    looks = [list(TRAITS).index(name) for name in LOOKS]
    right = (predictions == targets)[..., looks].numpy()
    rows = {
        "traits": bootstrap_ratio(right.sum((1, 2)), right[0].size * ones),
        "all five": bootstrap_ratio(right.all(-1).sum(1), subjects * ones),
        **{name: bootstrap_ratio(right[..., trait].sum(1), subjects * ones) for trait, name in enumerate(LOOKS)},
    }
    if subjects == 2:
        differ = (targets != targets.flip(1))[..., looks].numpy()
        swapped = (predictions == targets.flip(1))[..., looks].numpy() & differ
        relations = torch.tensor([RELATIONS.index(plan.relation) for plan in plans])
        rows["relation"] = wilson(int((judges.relation(images).argmax(1) == relations).sum()), len(plans))
        rows["confusion"] = bootstrap_ratio(swapped.sum((1, 2)), np.maximum(differ.sum((1, 2)), 0))
    return {name: estimate.text(100) for name, estimate in rows.items()}


def counted_cells(out: Path, rows: Sequence[str] = ROWS) -> dict[str, dict[str, dict]]:
    """Read what has been counted: by row, then by the number of creatures; of a variant also how far its gates opened.

    A cell's ``gates`` are the largest |tanh(alpha)| of the adapter's attention and of its feed-forward; 0 is closed.
    """
    cells: dict[str, dict[str, dict]] = {}
    for row in rows:
        gates = {"gates": opened_gates(adapter_file(out, row))} if row in VARIANTS else {}
        for subjects in ONE, TWO:
            cell = _cell(out, row, subjects)
            if cell.exists():
                cells.setdefault(row, {})[subjects] = json.loads(cell.read_text(encoding="utf-8")) | gates
    return cells


def table(cells: Mapping[str, Mapping[str, Mapping]]) -> str:
    """Write what has been counted as Markdown."""
    heads = {ONE: ("traits", "all five"), TWO: ("traits", "all five", "relation", "confusion")}
    columns = [(subjects, name) for subjects, names in heads.items() for name in names]
    titles = [f"{'one' if subjects == ONE else 'two'}: {name}" for subjects, name in columns]
    lines = [f"| row | {' | '.join(titles)} |", f"|{' --- |' * (len(titles) + 1)}"]
    for row, counted in cells.items():
        lines.append(f"| {row} | {' | '.join(counted.get(many, {}).get(name, '') for many, name in columns)} |")
    return "\n".join(lines)
