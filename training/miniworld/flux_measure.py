"""What routing does to identities, counted: trained with it or without, steered when drawing or not.

The small Flux is not told where creatures stand, so a picture may show the layout asked for or its mirror image: the
one in which the judge finds the asked species in their boxes more likely is counted. Poses are the model's own too.
What that costs the judge is measured on true renders with poses drawn anew (`renders_posed_anew`): no row can be
expected above it.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.contact_sheet import save_picture
from training.settled_file import write_text

from .flux import run_name
from .flux_sampling import STEERING, FluxWorld, generate
from .identity import SPECIES
from .judges import Judges, crop_boxes, load_trained, validate
from .measure import measure
from .relations import SEEN
from .renderer import render
from .sampling import Request, request_of
from .scene import Plan, stage
from .sheets import pixels, tiled
from .triplets import evaluation_plans

TRAINED = {"with routing": True, "without routing": False}
SHOWN = 8


def measure_flux(out: Path, pictures: int, seed: int = 0) -> Iterator[str]:
    """Counts every variant that is trained into `<out>/flux_measured/measured.json`; yields a line a row.

    The same plans, references and noise for every row. A sheet of the first pictures goes beside the numbers.

    Args:
        out: holds the runs and the judges'.
        pictures: of every row.
        seed: of plans, references and noise.
    Raises:
        FileNotFoundError: no judges, or no variant trained yet.
    """
    judge, folder = load_trained(out), out / "flux_measured"
    variants = {name: routing for name, routing in TRAINED.items() if _pointer(out, routing).exists()}
    if not variants:
        raise FileNotFoundError(f"{out}: expected a trained Flux; run python -m training.miniworld flux")
    plans = [evaluation_plans(SEEN[index % len(SEEN)], 1, seed + index)[0] for index in range(pictures)]
    requests = [request_of(plan, np.random.default_rng((seed, 13, index))) for index, plan in enumerate(plans)]
    facts = {"pictures": pictures, "seed": seed, "judges_on_renders": validate(out), **bounds(judge, plans, seed)}
    facts["trained"] = {name: run_facts(out, routing) for name, routing in variants.items()}
    sheet = [render(plan).image for plan in plans[:SHOWN]]
    for subject in range(2):
        sheet += pixels(torch.stack([request.references[subject] for request in requests[:SHOWN]]))
    for name, routing in variants.items():
        world = FluxWorld.open(out, routing)
        for steering, strength in STEERING.items():
            images = draw(world, requests, seed, strength)
            row = measure(judge, as_planned(judge, images, plans), plans).table()
            facts[f"{name}, steering {steering}"] = row
            sheet += pixels(images[:SHOWN])
            shown = (f"{score} {row[score]['value']:.3f}" for score in ("identity", "confusion", "relation"))
            yield f"{name}, steering {steering}: {', '.join(shown)}"
    write_text(folder / "measured.json", json.dumps(facts, indent=1) + "\n")
    save_picture(tiled(sheet, columns=min(SHOWN, pictures)), folder / "samples.png")


def draw(world: FluxWorld, requests: list[Request], seed: int, strength: float) -> Tensor:
    """(B, 3, 128, 128): a picture a request, its noise a function of seed and place."""
    return torch.stack([generate(world, request, seed + index, strength) for index, request in enumerate(requests)])


def run_facts(out: Path, routing: bool) -> dict[str, float]:
    """Steps, samples and minutes of a variant."""
    told = json.loads(_pointer(out, routing).read_text(encoding="utf-8"))
    return {"steps": told["step"], "samples": told["samples"], "minutes": round(told["seconds"] / 60, 1)}


def _pointer(out: Path, routing: bool) -> Path:
    return out / run_name(routing) / "latest.json"


def bounds(judge: Judges, plans: list[Plan], seed: int) -> dict[str, dict]:
    """The judge's scores on true renders: as planned, and with poses drawn anew."""
    anew = [
        replace(plan, staging=stage(np.random.default_rng((seed, 17, index)), plan.relation))
        for index, plan in enumerate(plans)
    ]
    return {
        "renders": measure(judge, renders(plans), plans).table(),
        "renders_posed_anew": measure(judge, as_planned(judge, renders(anew), plans), plans).table(),
    }


def renders(plans: list[Plan]) -> Tensor:
    """(B, 3, 128, 128) in [0, 1]."""
    images = np.stack([render(plan).image for plan in plans])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def as_planned(judge: Judges, images: Tensor, plans: list[Plan]) -> Tensor:
    """Pictures (B, 3, H, W), mirrored where the asked species then stand in their boxes more likely."""
    boxes = torch.from_numpy(np.stack([render(plan, 64).boxes for plan in plans]))
    asked = torch.tensor([[SPECIES.index(who.species) for who in plan.identities] for plan in plans])

    def likelihood(pictures: Tensor) -> Tensor:
        logits = judge.identity(crop_boxes(pictures, boxes)[0])[0]["species"].log_softmax(dim=-1)
        return logits.gather(1, asked.flatten()[:, None]).view(len(plans), -1).sum(dim=1)

    mirrored = images.flip(-1)
    better = likelihood(mirrored) > likelihood(images)
    return torch.where(better[:, None, None, None], mirrored, images)
