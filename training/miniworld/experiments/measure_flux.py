"""Count what routing does to identities: trained with it, without it, or on numbered references; steered or not.

Beside steering stands the usual way of models with numbered references: one pass for each reference, masked to its box,
the passes combined ("a pass each").

Every picture is classified twice: in the boxes of its plan, the regions of steering, which counts a creature drawn
elsewhere as wrong, as the person who set the boxes would; and wherever its creatures stand, since nothing but steering
sets their places. For that, of several layouts that the renderer draws for the relation, the one counts whose boxes
most likely hold the requested creatures, by all their traits. The loss by this search is measured on true renders with
poses drawn anew (`renders_posed_anew`).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...common.atomic_io import atomic_write, write_text
from ...common.sheets import save_picture
from ...host_diffusers.miniworld.architectures import FOLDER
from ..recipes import flux
from ..recipes.classifiers import Classifiers, crop_boxes, load_shipped, shipped_accuracy
from ..recipes.export import flux_history
from ..recipes.labelled_scenes import LOOKS, TRAITS, trait_row
from ..recipes.pictures import to_uint8
from ..world.relations import SEEN
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, stage
from ..world.triplets import plans_in_turn
from .generate import Request, request_of
from .generate_flux import STEERING, FluxWorld, generate, generate_per_subject
from .measure import Measurement, Predictions, Share, classify, renders
from .report import write_section
from .sheets import tiled

NUMBERED = "numbered references"
TRAINED = {"with routing": flux.SETTINGS.name, "without routing": flux.UNROUTED.name, NUMBERED: flux.INDEX.name}
A_PASS_EACH = "a pass each"
AGREEING = 8  # pictures drawn with the weights as trained too
BOUNDS = ("renders", "renders_posed_anew")
LAYOUTS = 16
COLUMNS = {
    "relation": "relation",
    "traits": "traits, where asked",
    "fur": "fur, where asked",
    "other": "the other's fur, where asked",
    "traits_found": "traits, wherever",
    "fur_found": "fur, wherever",
}
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Layouts:
    """Layouts in which a picture may show its plan.

    Attributes:
        plans: K, the first as requested.
        boxes: (K, 2, 4) where the two creatures stand.
    """

    plans: tuple[ScenePlan, ...]
    boxes: Tensor

    @classmethod
    def of(cls, plan: ScenePlan, rng: np.random.Generator) -> "Layouts":
        """Take the plan, and the same with poses drawn anew, mirrored half of the time."""
        plans = (plan, *(replace(plan, staging=stage(rng, plan.relation)) for _ in range(LAYOUTS - 1)))
        return cls(plans, torch.from_numpy(np.stack([render(each, 64).boxes for each in plans])))


def measure_flux(out: Path, pictures: int, folder: Path = FOLDER, seed: int = 0) -> Iterator[str]:
    """Count every trained variant into `flux/measurements.json` and the model card; yield one line per row.

    The same plans, references and noise for every row. Drawn pictures stay in `<out>/flux_pictures` and are not drawn
    again. A sheet of the first ones goes to `<out>/sheets/flux.png`.

    Args:
        out: holds the runs.
        pictures: of every row.
        folder: the miniworld's, with the card.
        seed: of plans, references and noise.
    Raises:
        FileNotFoundError: no variant trained yet.
    """
    variants = {name: run for name, run in TRAINED.items() if flux_history(out, run)}
    if not variants:
        raise FileNotFoundError(f"{out}: expected a trained Flux; run python -m training.miniworld flux")
    judge = load_shipped(folder)
    plans = plans_in_turn(SEEN, pictures, seed)
    requests = [request_of(plan, seed, index) for index, plan in enumerate(plans)]
    layouts = [Layouts.of(plan, generator(seed, Stream.LAYOUT, index)) for index, plan in enumerate(plans)]
    facts = {"pictures": pictures, "seed": seed, "judges_on_renders": shipped_accuracy(folder)}
    facts |= bounds(judge, plans, layouts, seed)
    facts["trained"] = {name: flux_history(out, run) for name, run in variants.items()}
    facts["stored in 8 bits, PSNR to the pictures of the trained weights"] = {
        name: agreement(out, run, requests[:AGREEING], seed) for name, run in variants.items()
    }
    sheet = [render(plan).image for plan in plans[:SHOWN]]
    for subject in range(2):
        sheet += to_uint8(torch.stack([request.references[subject] for request in requests[:SHOWN]]))
    for name, run in variants.items():
        for steering in (*STEERING, *((A_PASS_EACH,) if name == NUMBERED else ())):
            images = draw_or_read(out, run, steering, requests, seed)
            row = facts[f"{name}, steering {steering}"] = scores(judge, images, plans, located(judge, images, layouts))
            sheet += to_uint8(images[:SHOWN])
            numbers = ", ".join(f"{words} {Share(**row[key])}" for key, words in COLUMNS.items())
            yield f"{name}, steering {steering}: {numbers}"
    write_text(folder / "flux" / "measurements.json", json.dumps(facts, indent=1) + "\n")
    write_section(folder / "README.md", "flux", table(facts))
    save_picture(tiled(sheet, columns=min(SHOWN, pictures)), out / "sheets" / "flux.png")


def table(facts: dict) -> str:
    """Write the rows as Markdown, in percent with 95 % intervals."""
    rows = [name for name in facts if "steering" in name] + list(BOUNDS)
    lines = [
        f"| {' | '.join(('trained, steered when drawing', *COLUMNS.values(), 'pictures'))} |",
        "| --- " * (2 + len(COLUMNS)) + "|",
    ]
    for name in rows:
        cells = [str(Share(**facts[name][key])) for key in COLUMNS]
        lines.append(f"| {' | '.join((name.replace('_', ' '), *cells, str(facts['pictures'])))} |")
    return "\n".join((*lines, "", f"Trained {trained_text(facts['trained'])}."))


def trained_text(runs: dict[str, dict]) -> str:
    """List the samples and minutes of the variants, the common base first."""
    histories = {"base, from words": next(iter(runs.values()))["base"]}
    histories |= {name: run["references"] for name, run in runs.items()}
    return "; ".join(f"{name}: {run['samples']} samples in {run['minutes']} minutes" for name, run in histories.items())


def draw_or_read(
    out: Path, run: str, steering: str, requests: list[Request], seed: int, rounded: bool = True
) -> Tensor:
    """Draw (B, 3, 128, 128), one picture per request; read them from disk if the same weights drew them before."""
    world = FluxWorld.open(out, run, rounded)
    name = f"{run}-{world.digest()}-{steering.replace(' ', '_')}-{len(requests)}-{seed}.npy"
    path = out / "flux_pictures" / name
    if not path.exists():
        pictures = [
            generate_per_subject(world, request, seed + index)
            if steering == A_PASS_EACH
            else generate(world, request, seed + index, STEERING[steering])
            for index, request in enumerate(requests)
        ]
        atomic_write(path, lambda place: _save(place, torch.stack(pictures)))
    return torch.from_numpy(np.load(path))


def agreement(out: Path, run: str, requests: list[Request], seed: int) -> float:
    """Return the PSNR in dB between pictures of the stored and of the trained weights, references steered."""
    stored, trained_on = (draw_or_read(out, run, "soft", requests, seed, rounded) for rounded in (True, False))
    return round(float(-10 * (stored - trained_on).square().mean().clamp(min=1e-10).log10()), 1)


def _save(path: Path, pictures: Tensor) -> None:
    with path.open("wb") as file:
        np.save(file, pictures.numpy())


def bounds(judge: Classifiers, plans: list[ScenePlan], layouts: list[Layouts], seed: int) -> dict[str, dict]:
    """Score the classifiers on true renders: as planned, and with poses drawn anew, which they have to find."""
    anew = [
        replace(plan, staging=stage(generator(seed, Stream.LAYOUT, index, 1), plan.relation))
        for index, plan in enumerate(plans)
    ]
    as_planned, posed_anew = renders(plans), renders(anew)
    best_plans = located(judge, posed_anew, layouts)
    return dict(zip(BOUNDS, (scores(judge, as_planned, plans, plans), scores(judge, posed_anew, plans, best_plans))))


def scores(
    judge: Classifiers, images: Tensor, planned: list[ScenePlan], matched: list[ScenePlan]
) -> dict[str, dict[str, float]]:
    """Score a row: the relation, and looks in the boxes of the `planned` (all traits) and of the `matched` plans."""
    row = shares(classify(judge, images, planned), classify(judge, images, matched))
    return {name: asdict(share) for name, share in row.items()}


def shares(in_boxes: Predictions, anywhere: Predictions) -> dict[str, Share]:
    """Count a row of the judge's predictions in the requested boxes, and wherever the creatures are."""
    fur, species = LOOKS.index("fur"), LOOKS.index("species")
    ones = np.ones(len(in_boxes.relation))
    return {
        "relation": Share.of(int(in_boxes.relation.sum()), len(ones)),
        "fused": Measurement.of(in_boxes).fused,
        "traits": Measurement.of(in_boxes).identity,
        **{name: Share.of_parts(in_boxes.right[..., at].sum(1), 2 * ones) for at, name in enumerate(LOOKS)},
        "other": Share.of_parts(in_boxes.swapped[..., fur].sum(1), in_boxes.differ[..., fur].sum(1)),
        "other_species": Share.of_parts(in_boxes.swapped[..., species].sum(1), in_boxes.differ[..., species].sum(1)),
        "traits_found": Measurement.of(anywhere).identity,
        "fur_found": Share.of_parts(anywhere.right[..., fur].sum(1), 2 * ones),
    }


@torch.no_grad()
def located(judge: Classifiers, images: Tensor, layouts: list[Layouts]) -> list[ScenePlan]:
    """Choose for each picture of (B, 3, H, W) the layout whose boxes most likely hold the requested creatures."""
    best_plans = []
    for image, options in zip(images, layouts):
        traits = torch.tensor([trait_row(who) for who in options.plans[0].cast])  # (2, 8)
        crops, _ = crop_boxes(image.expand(len(options.plans), -1, -1, -1), options.boxes)
        logits = judge.identity(crops)[0]
        likelihood = sum(
            logits[name].log_softmax(dim=-1).unflatten(0, (-1, 2))[:, torch.arange(2), traits[:, column]].sum(dim=1)
            for column, name in enumerate(TRAITS)
            if name in LOOKS
        )
        best_plans.append(options.plans[int(likelihood.argmax())])
    return best_plans
