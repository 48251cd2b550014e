"""Draw scenes of unseen identities with exported models, count what is right, and lay renders beside samples.

    python -m training.miniworld.experiments2.measure --models out/world2/models --out out/world2/measured

Counted by the classifiers that lie with the models. A relation is right when it is the class asked for, so a fused
body, which has a class of its own, never is. Emblems count where the renderer shows them, and three times: with all
tokens, without the local tokens, and with another creature's local tokens: through which tokens does an emblem travel?
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.stats import bootstrap_ratio, wilson
from ...host_diffusers.miniworld.bundle import Miniworld, load_miniworld
from ..experiments.generate import SAMPLING_STEPS, Request, generate
from ..recipes.pictures import to_tensor, to_uint8
from ..recipes2.classifiers import VISIBLE, Classifiers, crop_boxes, load_exported
from ..recipes2.corpus import PORTRAIT_PIXELS
from ..recipes2.labelled_scenes import FUSED, RELATIONS, TRAITS, trait_row
from ..world2.relations import HELD_OUT, SEEN
from ..world2.renderer import Render, render
from ..world2.rng_streams import Stream, generator
from ..world2.scene import ScenePlan, portrait
from ..world2.traits import CreatureTraits, draw_traits
from ..world2.triplets import evaluation_plans, look_alike_plans

BATCH = 6
PLAIN_TRAITS = ("species", "fur", "belly", "pattern", "accessory")
SEED = 1000


@dataclass(frozen=True, eq=False)
class Answers:
    """What the classifiers say of N pictures of two creatures.

    Attributes:
        relation: (N,) the relation asked for is seen; fused: (N,) bodies are called fused.
        right: (N, 2, 5) PLAIN_TRAITS are as the reference has them; differ: (N, 2, 5) the two creatures differ there.
        swapped: (N, 2, 5) they differ and the other one's is drawn.
        emblem: (N, 2) shape and colour of the emblem are right; shown: (N, 2) it should be visible.
    """

    relation: np.ndarray
    fused: np.ndarray
    right: np.ndarray
    differ: np.ndarray
    swapped: np.ndarray
    emblem: np.ndarray
    shown: np.ndarray

    def table(self) -> dict[str, str]:
        """Shares in percent with 95 % intervals: Wilson's for pictures, a bootstrap over pictures for the rest."""
        ones = np.ones(len(self.relation))
        rows = {
            "relation": wilson(int(self.relation.sum()), len(ones)),
            "fused": wilson(int(self.fused.sum()), len(ones)),
            "traits": bootstrap_ratio(self.right.sum((1, 2)), self.right[0].size * ones),
            "all five": bootstrap_ratio(self.right.all(-1).sum(1), 2 * ones),
        }
        if self.differ.any():
            rows["confusion"] = bootstrap_ratio(self.swapped.sum((1, 2)), self.differ.sum((1, 2)))
        if self.shown.any():
            rows["emblem"] = bootstrap_ratio((self.emblem & self.shown).sum(1), self.shown.sum(1))
        return {name: estimate.text(100) for name, estimate in rows.items()}


@torch.no_grad()
def classify(model: Classifiers, images: Tensor, plans: list[ScenePlan]) -> Answers:
    """Compare pictures (N, 3, 128, 128) in [0, 1] with the plans of two creatures each that they were asked for."""
    drawn = [render(plan) for plan in plans]
    boxes = torch.from_numpy(np.stack([each.boxes for each in drawn]))
    wanted = torch.tensor([[trait_row(traits) for traits in plan.cast] for plan in plans])  # (N, 2, 8)
    logits, _ = model.identity(crop_boxes(images, boxes)[0])
    seen = torch.stack([logits[name].argmax(1) for name in TRAITS], dim=1).unflatten(0, (len(plans), 2))
    kept = [list(TRAITS).index(name) for name in PLAIN_TRAITS]
    emblem = [list(TRAITS).index(name) for name in ("emblem", "emblem_colour")]
    differ = (wanted != wanted.flip(1))[..., kept]
    answers = model.relation(images).argmax(1)
    return Answers(
        (answers == torch.tensor([RELATIONS.index(plan.relation) for plan in plans])).numpy(),
        (answers == FUSED).numpy(),
        (seen == wanted)[..., kept].numpy(),
        differ.numpy(),
        ((seen == wanted.flip(1))[..., kept] & differ).numpy(),
        (seen == wanted)[..., emblem].all(-1).numpy(),
        np.stack([each.emblem_visible >= VISIBLE for each in drawn]),
    )


def request_of(plan: ScenePlan, index: int, drawn: Render | None = None) -> Request:
    """Ask for a plan: its caption and boxes, fresh portraits of its cast, and of others of the same species."""
    rng = generator(SEED, Stream.EVALUATION, index, 1)
    drawn = drawn or render(plan)

    def portraits(cast: list[CreatureTraits]) -> Tensor:
        return to_tensor([render(portrait(rng, who, plan.backdrop.place), PORTRAIT_PIXELS).image for who in cast])

    others = [replace(draw_traits(rng, None), species=traits.species) for traits in plan.cast]
    references = portraits(list(plan.cast))
    boxes = torch.from_numpy(drawn.boxes)
    return Request(plan.caption.prompt, plan.caption.names, references, boxes, portraits(others))


def draw(world: Miniworld, plans: list[ScenePlan], **how: object) -> Tensor:
    """(N, 3, 128, 128) in [0, 1]; the same plans give the same noise and references."""
    parts = []
    for start in range(0, len(plans), BATCH):
        requests = [request_of(plan, start + at) for at, plan in enumerate(plans[start : start + BATCH])]
        parts.append(generate(world, requests, SEED + start, **how))
    return torch.cat(parts)


def plans_of(relations: tuple[str, ...], count: int) -> list[ScenePlan]:
    """`count` scenes of unseen identities, relations in turn."""
    each = -(-count // len(relations))
    columns = [evaluation_plans(relation, each, SEED + row) for row, relation in enumerate(relations)]
    return [column[index] for index in range(each) for column in columns][:count]


def measure(
    world: Miniworld, model: Classifiers, pictures: int, out: Path, steps: int = SAMPLING_STEPS
) -> Iterator[dict]:
    """Rows of results as they are counted; every set of pictures is kept as a contact sheet in `out`."""
    seen, held_out = plans_of(SEEN, pictures), plans_of(HELD_OUT, pictures)
    jobs = {
        "renders": (seen, None),
        "copies by the autoencoder": (seen, "copies"),
        "seen relations": (seen, {}),
        "seen relations, without local tokens": (seen, {"grid": 0}),
        "seen relations, another's local tokens": (seen, {"stranger": "local"}),
        "held-out relations, no LoRA": (held_out, {}),
        "look-alikes, sitting": (look_alike_plans("sitting beside", max(pictures // 4, 2), SEED), {}),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, (plans, how) in jobs.items():
        truth = to_tensor([render(plan).image for plan in plans])
        images = (
            truth
            if how is None
            else draw(world, plans, steps=steps, **how)
            if isinstance(how, dict)
            else copies(world, truth)
        )
        row = {"name": name, "pictures": len(plans), **classify(model, images, plans).table()}
        if how == "copies":
            row["psnr"] = round(float(-10 * (images - truth).square().mean().log10()), 2)
        sheet(truth[:36], images[:36]).save(out / f"{name.replace(' ', '_').replace(',', '')}.png")
        yield row


@torch.no_grad()
def copies(world: Miniworld, images: Tensor) -> Tensor:
    """Pictures through the autoencoder and back."""
    return torch.cat([world.to_images(world.to_latents(part)) for part in images.split(16)])


def sheet(truth: Tensor, drawn: Tensor, columns: int = 6) -> Image.Image:
    """Renders in the left half, what was drawn of the same plans in the right."""

    def grid(images: Tensor) -> np.ndarray:
        tiles = to_uint8(images)
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
        rows = [np.concatenate(tiles[at : at + columns], axis=1) for at in range(0, len(tiles), columns)]
        return np.concatenate(rows)

    left, right = grid(truth), grid(drawn)
    gap = np.full((len(left), 16, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate((left, gap, right), axis=1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=of_type.path, default=Path("out/world2/models"))
    parser.add_argument("--out", type=of_type.path, default=Path("out/world2/measured"))
    parser.add_argument("--pictures", type=int, default=114, help="of each row; 216 in the paper's tables")
    parser.add_argument("--steps", type=int, default=SAMPLING_STEPS, help="of the sampler")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    rows = []
    for row in measure(load_miniworld(args.models), load_exported(args.models), args.pictures, args.out, args.steps):
        rows.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
        write_text(args.out / "measured.json", json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
