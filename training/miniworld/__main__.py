"""The miniworld's door: python -m training.miniworld VERB (see --help).

In order: render, vae, clip, (python -m training.distill --model miniworld), encode, unet, refine, truth, judges,
export; begin goes on from the shipped weights instead of from nothing. To look and to count: sheets, measure, demo,
ablate. The small Flux, after encode: flux-base, flux, flux --routing off, flux-export, flux-measure,
flux-ablate. Training verbs
are bounded by --minutes, save to --out and go on from there when called again; they run the same on a GPU (--device
cuda --batch 128). The second world, whose weights are not shipped yet: train-all --minutes 165 --out out/world2.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ..common import arguments as of_type
from ..common.cli import command, going_on, leave, say, shell_command
from ..host_diffusers.flux.lora import SITES
from ..host_diffusers.miniworld.architectures import FOLDER
from ..host_diffusers.miniworld.bundle import load_miniworld
from ..host_diffusers.miniworld.flux_files import FLUX_FOLDER
from .experiments import ablate, ablate_flux, demo, report, sheets
from .experiments import measure_flux as flux_measure
from .recipes import classifiers as judges
from .recipes import clip, export, flux, unet, vae
from .recipes import encoded_corpus as encoded
from .recipes import vae_decoder as refine
from .recipes import warm_start as begin
from .recipes.corpus import CorpusSize, render_corpus
from .recipes.labelled_scenes import render_labelled_scenes
from .world.example_creatures import write_creatures
from .world.relations import SEEN

# verb: what trains, its settings, what it is
TRAINERS = {
    "vae": (vae.train, vae.SETTINGS, "train the autoencoder"),
    "clip": (clip.train, clip.SETTINGS, "train the text encoders and the vision tower"),
    "unet": (unet.train, unet.SETTINGS, "train the UNet with its identity model"),
    "flux-base": (flux.train_base, flux.BASE, "train the small Flux from words, without references"),
    "flux": (flux.train, flux.SETTINGS, "train it with references, with or without routing"),
    "judges": (judges.train, judges.SETTINGS, "train the judges of relation and identity"),
    "refine": (refine.train, refine.SETTINGS, "train the decoder further, the latents unchanged"),
}


def arguments() -> argparse.ArgumentParser:
    """Every verb and what it takes."""
    parser = argparse.ArgumentParser(
        prog="python -m training.miniworld", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=of_type.path, default=Path("out/miniworld"), help="where renders and checkpoints go"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    drawing = verbs.add_parser("render", help="draw the corpus all recipes train on")
    for name, value in vars(CorpusSize()).items():
        drawing.add_argument(f"--{name}", type=of_type.whole(0), default=value)
    labelled = verbs.add_parser("truth", help="draw the labelled scenes the judges train on")
    labelled.add_argument("--scenes", type=of_type.whole(), default=9000)
    labelled.add_argument("--seed", type=of_type.whole(0), default=0)
    verbs.add_parser("creatures", help="draw the twelve creatures of the Miniworld Creature node, into the pack")
    for verb in (drawing, labelled):
        verb.add_argument("--processes", type=of_type.whole(), default=2)
    computing = argparse.ArgumentParser(add_help=False)
    computing.add_argument("--device", type=of_type.device, default="cpu")
    computing.add_argument("--threads", type=of_type.whole(), default=2)
    for verb, (_, _, words) in TRAINERS.items():
        training = verbs.add_parser(verb, parents=[computing], help=words)
        training.add_argument("--minutes", type=of_type.positive, default=60.0, help="length of this call")
        training.add_argument("--batch", type=of_type.whole(), help="samples a step; small on a CPU, large on a GPU")
        training.add_argument("--lr", type=of_type.positive, help="learning rate")
        training.add_argument("--steps", type=of_type.whole(), help="go no further than this step")
        if verb == "flux":
            training.add_argument("--routing", choices=("on", "off"), default="on", help="DreamO's two further losses")
    encoding = verbs.add_parser("encode", parents=[computing], help="freeze vae, clip and distill; encode the corpus")
    encoding.add_argument("--parts", nargs="+", default=encoded.PARTS, choices=encoded.PARTS)
    encoding.add_argument(
        "--identities", type=of_type.whole(), help="only the first of them, and scenes of these; all by default"
    )
    encoding.add_argument("--views", type=of_type.whole(), help="reference views of an identity; all by default")
    verbs.add_parser("begin", parents=[computing], help="train on from models/miniworld instead of from nothing")
    verbs.add_parser("export", parents=[computing], help="write models/miniworld in half precision")
    verbs.add_parser("sheets", parents=[computing], help="contact sheets of renders, reconstructions and samples")
    showing = verbs.add_parser("demo", help="learn a held-out relation from 5 triplets, draw it, count; into --out")
    removing = verbs.add_parser("ablate", help="what each part of the method brings; into --out and the model card")
    removing.add_argument(
        "--minutes", type=of_type.positive, default=600.0, help="begin nothing new after these; call again"
    )
    removing.add_argument("--seeds", type=int, nargs="+", default=ablate.SEEDS, choices=ablate.SEEDS)
    removing.add_argument("--anew", action="store_true", help="count rows anew that the model card already has")
    for verb in (showing, removing):
        verb.add_argument("--threads", type=of_type.whole(), default=2)
    _flux_ablate(verbs)
    verbs.add_parser("train-all", add_help=False, help="the second world: every recipe in order, within --minutes")
    verbs.add_parser("flux-export", parents=[computing], help="write models/miniworld/flux in half precision")
    counting = verbs.add_parser("measure", parents=[computing], help="count what the shipped models do")
    comparing = verbs.add_parser("flux-measure", parents=[computing], help="count what routing does to identities")
    for verb in (counting, comparing):
        verb.add_argument("--pictures", type=of_type.whole(), default=56)
    return parser


def _flux_ablate(verbs) -> None:
    """Add the verb flux-ablate."""
    learning = verbs.add_parser(
        "flux-ablate", help="learn a held-out relation on the small Flux in every way; into --out"
    )
    learning.add_argument(
        "--minutes", type=of_type.positive, default=600.0, help="begin nothing new after these; call again"
    )
    learning.add_argument("--sites", choices=SITES, default="T", help="of the rows that do not study sites")
    learning.add_argument("--seeds", type=int, nargs="+", default=ablate_flux.SEEDS, choices=ablate_flux.SEEDS)
    learning.add_argument("--pictures", type=of_type.whole(), default=ablate_flux.PICTURES, help="of a row and seed")
    learning.add_argument("--threads", type=of_type.whole(), default=2)


def draw(args: argparse.Namespace) -> None:
    """The verbs render, truth and creatures."""
    if args.verb == "creatures":
        lines = map(str, write_creatures(FOLDER / "creatures"))
    elif args.verb == "render":
        size = CorpusSize(args.scenes, args.identities, args.portraits, args.seed)
        lines = render_corpus(args.out / "corpus", size, args.processes)
    else:
        lines = render_labelled_scenes(args.out / "truth", args.scenes, args.seed, args.processes)
    for line in lines:
        say(line)


def train(args: argparse.Namespace) -> None:
    """The recipes, with the settings of their modules; batch and learning rate as asked."""
    run, settings, _ = TRAINERS[args.verb]
    asked = {"batch_size": args.batch, "lr": args.lr, "steps": args.steps}
    asked = {key: value for key, value in asked.items() if value is not None}
    more = {"routing": args.routing == "on"} if args.verb == "flux" else {}
    run(args.out, torch.device(args.device), args.minutes, replace(settings, **asked), **more)


def look(args: argparse.Namespace) -> None:
    """The verbs on finished models: begin, encode, export, sheets, measure; flux-export, flux-measure."""
    device = torch.device(args.device)
    if args.verb == "encode":
        for line in encoded.encode(args.out, device, tuple(args.parts), args.identities, args.views):
            say(line)
    elif args.verb == "begin":
        say(f"begun from models/{FOLDER.name}: {', '.join(begin.begin(args.out)) or 'nothing, all runs are there'}")
    elif args.verb == "export":
        say(f"{export.export(args.out) / 1e6:.1f} MB of weights in models/{FOLDER.name}")
    elif args.verb == "flux-export":
        say(f"{flux.export(args.out) / 1e6:.1f} MB of weights in models/{FOLDER.name}/{FLUX_FOLDER.name}")
    elif args.verb == "flux-measure":
        for line in flux_measure.measure_flux(args.out, args.pictures):
            say(line)
    elif args.verb == "measure":
        world = load_miniworld().to(device)
        facts = report.write_measurements(world, FOLDER / "README.md", args.pictures)
        say(json.dumps(facts, indent=1))
    else:
        world, folder = load_miniworld().to(device), args.out / "sheets"
        sheets.render_sheet(folder / "renders.png")
        sheets.reconstruction_sheet(folder / "reconstructions.png", world)
        sheets.comparison_sheet(folder / "comparison.png", world, (*SEEN[:9], "hugging"))
        sheets.sample_sheet(folder / "samples.png", world)
        say(f"four sheets in {folder}")


def experiment(args: argparse.Namespace) -> None:
    """The verb ablate."""
    card = FOLDER / "README.md"
    known = () if args.anew else ablate.settled(card)
    for line in ablate.ablate(args.out, args.minutes, seeds=tuple(args.seeds), known=known):
        say(line)
    say(ablate.tables(ablate.write_results(args.out, card)))


def experiment_on_flux(args: argparse.Namespace) -> None:
    """The verb flux-ablate."""
    out = args.out / "flux_ablation"
    for line in ablate_flux.ablate(out, args.minutes, args.sites, args.pictures, tuple(args.seeds)):
        say(line)
    say(ablate_flux.write_results(out))


def run(args: argparse.Namespace, again: str) -> None:
    """One verb."""
    if args.verb in ("render", "truth", "creatures"):
        draw(args)
        return
    torch.set_num_threads(args.threads)
    if args.verb == "demo":
        demo.run(args.out, again=again)
        return
    {**dict.fromkeys(TRAINERS, train), "ablate": experiment, "flux-ablate": experiment_on_flux}.get(args.verb, look)(
        args
    )


def main() -> int:
    """The command; returns its exit code."""
    if sys.argv[1:2] == ["train-all"]:  # has arguments of its own; its imports are its own too
        from .recipes2 import train_all

        return train_all.main(sys.argv[2:])
    args = arguments().parse_args()
    again = shell_command("training.miniworld", sys.argv[1:])
    return command(lambda: going_on(lambda: run(args, again), again), "%(asctime)s %(message)s")


if __name__ == "__main__":
    leave(main())
