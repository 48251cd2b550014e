"""What routing does to identities, counted: trained with it or without, steered when drawing or not.

The small Flux is not told where creatures stand. The judge looks for them: of several layouts that the renderer draws
for the relation, the one counts whose boxes most likely hold the species asked for; looks have no say in it. What is
lost that way is measured on true renders with poses drawn anew (`renders_posed_anew`): no row can be expected above it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.contact_sheet import save_picture
from training.host_diffusers.miniworld import FOLDER
from training.settled_file import write_text

from .flux import history
from .flux_sampling import STEERING, FluxWorld, generate
from .identity import SPECIES
from .judges import Judges, crop_boxes, load_shipped, shipped_accuracy
from .measure import Share, measure, renders
from .relations import SEEN
from .renderer import render
from .report import write_section
from .sampling import Request, request_of
from .scene import Plan, stage
from .sheets import pixels, tiled
from .triplets import evaluation_plans

TRAINED = {"with routing": True, "without routing": False}
BOUNDS = ("renders", "renders_posed_anew")
LAYOUTS = 16
SCORES = ("identity", "whole", "confusion", "relation")
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Layouts:
    """Ways in which a picture may show what it was asked for.

    Attributes:
        plans: K, the first as it was asked for.
        boxes: (K, 2, 4) where the two creatures stand.
    """

    plans: tuple[Plan, ...]
    boxes: Tensor

    @classmethod
    def of(cls, plan: Plan, rng: np.random.Generator) -> "Layouts":
        """The plan, and the same with poses drawn anew, mirrored half of the time."""
        plans = (plan, *(replace(plan, staging=stage(rng, plan.relation)) for _ in range(LAYOUTS - 1)))
        return cls(plans, torch.from_numpy(np.stack([render(each, 64).boxes for each in plans])))


def measure_flux(out: Path, pictures: int, folder: Path = FOLDER, seed: int = 0) -> Iterator[str]:
    """Counts every variant that is trained into `flux/measurements.json` and the model card; yields a line a row.

    The same plans, references and noise for every row. A sheet of the first pictures goes to `<out>/sheets/flux.png`.

    Args:
        out: holds the runs.
        pictures: of every row.
        folder: the miniworld's, with the card.
        seed: of plans, references and noise.
    Raises:
        FileNotFoundError: no variant trained yet.
    """
    judge = load_shipped()
    variants = {name: routing for name, routing in TRAINED.items() if history(out, routing)}
    if not variants:
        raise FileNotFoundError(f"{out}: expected a trained Flux; run python -m training.miniworld flux")
    plans = [evaluation_plans(SEEN[index % len(SEEN)], 1, seed + index)[0] for index in range(pictures)]
    requests = [request_of(plan, np.random.default_rng((seed, 13, index))) for index, plan in enumerate(plans)]
    layouts = [Layouts.of(plan, np.random.default_rng((seed, 19, index))) for index, plan in enumerate(plans)]
    facts = {"pictures": pictures, "seed": seed, "judges_on_renders": shipped_accuracy()}
    facts |= bounds(judge, plans, layouts, seed)
    facts["trained"] = {name: history(out, routing) for name, routing in variants.items()}
    sheet = [render(plan).image for plan in plans[:SHOWN]]
    for subject in range(2):
        sheet += pixels(torch.stack([request.references[subject] for request in requests[:SHOWN]]))
    for name, routing in variants.items():
        world = FluxWorld.open(out, routing)
        for steering, strength in STEERING.items():
            images = draw(world, requests, seed, strength)
            row = measure(judge, images, located(judge, images, layouts)).table()
            facts[f"{name}, steering {steering}"] = row
            sheet += pixels(images[:SHOWN])
            shown = (f"{score} {Share(**row[score])}" for score in SCORES)
            yield f"{name}, steering {steering}: {', '.join(shown)}"
    write_text(folder / "flux" / "measurements.json", json.dumps(facts, indent=1) + "\n")
    write_section(folder / "README.md", "flux", table(facts))
    save_picture(tiled(sheet, columns=min(SHOWN, pictures)), out / "sheets" / "flux.png")


def table(facts: dict) -> str:
    """The rows as Markdown, in percent with 95 % intervals."""
    rows = [name for name in facts if "steering" in name] + list(BOUNDS)
    lines = [f"| {' | '.join(('trained, steered when drawing', *SCORES, 'pictures'))} |", "| --- " * 6 + "|"]
    for name in rows:
        cells = [str(Share(**facts[name][score])) for score in SCORES]
        lines.append(f"| {' | '.join((name.replace('_', ' '), *cells, str(facts['pictures'])))} |")
    return "\n".join((*lines, "", f"Trained {trained(facts['trained'])}."))


def trained(runs: dict[str, dict]) -> str:
    """What the variants saw, the common base first."""
    told = {"base, from words": next(iter(runs.values()))["base"]}
    told |= {name: run["references"] for name, run in runs.items()}
    return "; ".join(f"{name}: {run['samples']} samples in {run['minutes']} minutes" for name, run in told.items())


def draw(world: FluxWorld, requests: list[Request], seed: int, strength: float) -> Tensor:
    """(B, 3, 128, 128): a picture a request, its noise a function of seed and place."""
    return torch.stack([generate(world, request, seed + index, strength) for index, request in enumerate(requests)])


def bounds(judge: Judges, plans: list[Plan], layouts: list[Layouts], seed: int) -> dict[str, dict]:
    """The judge's scores on true renders: as planned, and with poses drawn anew, which it has to find."""
    anew = [
        replace(plan, staging=stage(np.random.default_rng((seed, 17, index)), plan.relation))
        for index, plan in enumerate(plans)
    ]
    shown, moved = renders(plans), renders(anew)
    counted = (measure(judge, shown, plans), measure(judge, moved, located(judge, moved, layouts)))
    return {name: row.table() for name, row in zip(BOUNDS, counted)}


@torch.no_grad()
def located(judge: Judges, images: Tensor, layouts: list[Layouts]) -> list[Plan]:
    """For each of the pictures (B, 3, H, W) the layout in whose boxes the asked species are most likely."""
    found = []
    for image, options in zip(images, layouts):
        asked = torch.tensor([SPECIES.index(who.species) for who in options.plans[0].identities])
        crops, _ = crop_boxes(image.expand(len(options.plans), -1, -1, -1), options.boxes)
        shares = judge.identity(crops)[0]["species"].log_softmax(dim=-1).unflatten(0, (-1, len(asked)))  # (K, 2, 8)
        likelihood = shares[:, torch.arange(len(asked)), asked].sum(dim=1)
        found.append(options.plans[int(likelihood.argmax())])
    return found
