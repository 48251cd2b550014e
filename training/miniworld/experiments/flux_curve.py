"""What the small Flux gains by seeing more: DreamO's variant with less and with more training than the shipped weights.

Below the shipped weights a point is a run of its own, from nothing, its base in proportion; above them a trunk trains
on at a constant learning rate, and from it branches a cool-down for every point, so that each is as finished as the
shipped weights are. All draw the same scenes from the same noise, references steered.

    python -m training.miniworld --out out/curve render --scenes 24000 --identities 4000 --portraits 2
    python -m training.miniworld --out out/curve begin
    python -m training.miniworld --out out/curve encode --parts latents
    python -m training.miniworld.experiments.flux_curve --out out/curve

Every part goes on from where it was stopped.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from tqdm import tqdm

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.cli import command, going_on, leave, say, shell_command
from ...common.errors import UserErrors
from ...common.sheets import save_picture
from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import load_miniworld
from ...host_diffusers.miniworld.flux_files import load_flux, save_flux
from ...host_diffusers.miniworld.flux_text import PlaceholderWords
from ..recipes import export, flux, warm_start
from ..recipes.classifiers import load_shipped
from ..recipes.pictures import to_uint8
from ..world.relations import SEEN
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan
from ..world.triplets import plans_in_turn
from .generate import Request, request_of
from .generate_flux import STEERING, FluxWorld, generate
from .measure_flux import SHOWN, Layouts, located, scores
from .sheets import tiled

CURVE = "flux_curve"
POINTS = (12000, 144000)  # samples seen with references
STEERED = "soft"
COOLDOWN = 0.3  # of what a point above has seen since the shipped weights
_CPU = torch.device("cpu")
_NO_LIMIT = 1e6  # minutes: a point's samples decide


def flux_curve(out: Path, points: list[int], pictures: int, batch: int, folder: Path = FOLDER) -> Iterator[str]:
    """Train each point and count it into `<out>/flux_curve/curve.json`; yield a line for each, the shipped one first.

    What is trained and counted already is not done again; a call that is stopped goes on where it was. Beside each
    point's weights stands a sheet of its first pictures.

    Args:
        out: holds corpus, clip (of `begin`) and encoded.
        points: samples seen with references.
        pictures: of every point.
        batch: samples of a step.
        folder: the miniworld's.

    Raises:
        FileNotFoundError: not begun or not encoded yet.
        UserErrors: an earlier call's trunk has passed a new point, or it counted another number of pictures.
    """
    shipped = _history(folder / "flux")["references"]["samples"]
    yield _counted(out, folder / "flux", shipped, pictures, folder)
    for samples in sorted(points):
        exported = out / CURVE / f"{samples}-exported"
        if not (exported / "training.json").exists():
            train = _train_on if samples > shipped else _train_from_nothing
            name = train(out, folder / "flux", samples, batch)
            save_flux(flux.load_trained(out, name), exported)
            write_text(exported / "training.json", json.dumps(export.history(out / name)))
        yield _counted(out, exported, samples, pictures, folder)


def _history(folder: Path) -> dict[str, dict[str, float]]:
    """Read steps, samples and minutes of exported weights: of the base, and of the training on references."""
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def _train_from_nothing(out: Path, folder: Path, samples: int, batch: int) -> str:
    """Train a base in proportion, then references; return the run's name."""
    shipped = _history(folder)
    share = samples / shipped["references"]["samples"]
    base = replace(flux.BASE, name=f"{CURVE}/{samples}-base", batch_size=batch)
    base = replace(base, steps=round(share * shipped["base"]["samples"]) // batch)
    flux.train_base(out, _CPU, _NO_LIMIT, base)
    run = replace(flux.SETTINGS, name=f"{CURVE}/{samples}", batch_size=batch, steps=samples // batch)
    flux.train_dreamo(out, _CPU, _NO_LIMIT, run, base=base.name)
    return run.name


def _train_on(out: Path, folder: Path, samples: int, batch: int) -> str:
    """Train the trunk on to where a point branches off, and the branch to its end; return the branch's name."""
    shipped = _history(folder)["references"]
    steps = (samples - shipped["samples"]) // batch
    end, branch_off = shipped["steps"] + steps, shipped["steps"] + round((1 - COOLDOWN) * steps)
    trunk = replace(flux.SETTINGS, name=f"{CURVE}/trunk", batch_size=batch, cooldown=0.0)
    warm_start.begin_flux(out, trunk.name, folder)
    if not (out / CURVE / str(samples)).exists() and export.history(out / trunk.name)["steps"] > branch_off:
        raise UserErrors(f"{samples} samples: the trunk in {out / CURVE} has passed this point; take another --out")
    flux.train_dreamo(out, _CPU, _NO_LIMIT, trunk, branch_off)
    branch = replace(trunk, name=f"{CURVE}/{samples}", steps=end, cooldown=(end - branch_off) / end)
    _copy_run(out / trunk.name, out / branch.name)
    flux.train_dreamo(out, _CPU, _NO_LIMIT, branch)
    return branch.name


def _copy_run(source: Path, target: Path) -> None:
    """Copy a run's checkpoint, `latest.json` last, unless the target has one of its own."""
    if not (target / "latest.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        for file in source.glob("*.safetensors"):
            shutil.copy(file, target)
        shutil.copy(source / "latest.json", target)


@lru_cache(maxsize=1)  # rendering the layouts takes as long as drawing a third of a point
def _scenes(pictures: int) -> tuple[list[ScenePlan], list[Request], list[Layouts]]:
    """Plan the scenes that every point draws, and where their creatures may stand."""
    plans = plans_in_turn(SEEN, pictures, seed=0)
    requests = [request_of(plan, 0, index) for index, plan in enumerate(plans)]
    return plans, requests, [Layouts.of(plan, generator(0, Stream.LAYOUT, index)) for index, plan in enumerate(plans)]


def _counted(out: Path, weights: Path, samples: int, pictures: int, folder: Path) -> str:
    """Draw and count one point, or read what was counted."""
    file = out / CURVE / "curve.json"
    facts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"pictures": pictures, "points": {}}
    if facts["pictures"] != pictures:
        raise UserErrors(
            f"{file}: expected {pictures} pictures of a point, got {facts['pictures']}; take another --out"
        )
    if str(samples) not in facts["points"]:
        world = load_miniworld(folder)
        small = FluxWorld(load_flux(weights), world.text_g, world.vae, PlaceholderWords(world.words))
        plans, requests, layouts = _scenes(pictures)
        progress = tqdm(requests, f"{samples} samples", disable=None)
        images = torch.stack([generate(small, each, seed, STEERING[STEERED]) for seed, each in enumerate(progress)])
        judge = load_shipped(folder)
        facts["points"][str(samples)] = scores(judge, images, plans, located(judge, images, layouts))
        save_picture(tiled(to_uint8(images[: 3 * SHOWN]), columns=SHOWN), out / CURVE / f"{samples}.png")
        write_text(file, json.dumps(facts, indent=1) + "\n")
    row = facts["points"][str(samples)]
    return f"{samples} samples: " + ", ".join(f"{name} {100 * share['value']:.1f}" for name, share in row.items())


def main() -> int:
    """Run the command; return its exit code."""
    prog = "training.miniworld.experiments.flux_curve"
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=of_type.path, default=Path("out/miniworld"), help="of render, begin and encode")
    parser.add_argument("--points", type=of_type.whole(), nargs="+", default=POINTS, help="samples seen")
    parser.add_argument("--pictures", type=of_type.whole(), default=216, help="of every point")
    parser.add_argument("--batch", type=of_type.whole(), default=32, help="samples a step")
    parser.add_argument("--threads", type=of_type.whole(), default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def run() -> None:
        for line in flux_curve(args.out, args.points, args.pictures, args.batch):
            say(line)

    again = shell_command(prog, sys.argv[1:])
    return command(lambda: going_on(run, again), "%(asctime)s %(message)s")


if __name__ == "__main__":
    leave(main())
