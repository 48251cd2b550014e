"""Commands of the miniworld: python -m training.miniworld VERB (see --help).

All in one: train-all --minutes 165, every recipe in order within a budget. One by one: render, vae, clip, (python -m
training.distill --model miniworld), encode, unet, refine, truth, judges, detector, export; begin goes on from the
shipped weights instead of from nothing. To look and count: sheets, measure, demo, ablate. The small Flux, after encode:
flux-base, flux, flux --references numbered, flux-export, flux-measure, flux-ablate. Training verbs take --minutes, save
to --out and go on from there when called again; they run the same on a GPU (--device cuda --batch 128).
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
from .experiments import ablate, ablate_flux, ablation_report, ablation_rows, demo, report, sheets
from .experiments import measure_flux as flux_measure
from .recipes import (
    autoencoder,
    classifiers,
    contrastive,
    decoder,
    denoiser,
    detector,
    encoded_corpus,
    export,
    flux,
    warm_start,
)
from .recipes.corpus import CorpusSize, render_corpus
from .recipes.labelled_scenes import render_labelled
from .world.example_creatures import write_creatures
from .world.relations import SEEN

# verb: train function, settings, help
TRAINERS = {
    "vae": (autoencoder.train, autoencoder.SETTINGS, "train the autoencoder"),
    "clip": (contrastive.train, contrastive.SETTINGS, "train the text encoders and the vision tower"),
    "unet": (denoiser.train, denoiser.SETTINGS, "train the UNet with its identity model"),
    "flux-base": (flux.train_base, flux.BASE, "train the small Flux from words, without references"),
    "flux": (flux.train_dreamo, flux.SETTINGS, "train it with references, with or without routing"),
    "judges": (classifiers.train, classifiers.SETTINGS, "train the classifiers of relation and identity"),
    "refine": (decoder.train, decoder.SETTINGS, "train the decoder further, the latents unchanged"),
}


def arguments() -> argparse.ArgumentParser:
    """Make the parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="python -m training.miniworld", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=of_type.path, default=Path("out/miniworld"), help="where renders and checkpoints go"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)

    # Verbs that draw; they take a number of processes.
    drawing = verbs.add_parser("render", help="draw the corpus all recipes train on")
    for name, value in vars(CorpusSize()).items():
        drawing.add_argument(f"--{name}", type=of_type.whole(0), default=value)
    labelled = verbs.add_parser("truth", help="draw the labelled scenes the judges train on")
    labelled.add_argument("--scenes", type=of_type.whole(), default=9000)
    labelled.add_argument("--seed", type=of_type.whole(0), default=0)
    verbs.add_parser("creatures", help="draw the twelve creatures of the Miniworld Creature node, into the pack")
    for verb in (drawing, labelled):
        verb.add_argument("--processes", type=of_type.whole(), default=2)

    # Verbs that train, one for each recipe; they take a device, threads and minutes.
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
            training.add_argument(
                "--references",
                choices=("dreamo", "numbered"),
                default="dreamo",
                help="numbered: as Flux.2 and Kontext place them, without tables and routing",
            )

    # Verbs on trained models.
    encoding = verbs.add_parser("encode", parents=[computing], help="freeze vae, clip and distill; encode the corpus")
    encoding.add_argument("--parts", nargs="+", default=encoded_corpus.PARTS, choices=encoded_corpus.PARTS)
    encoding.add_argument(
        "--identities", type=of_type.whole(), help="only the first of them, and scenes of these; all by default"
    )
    encoding.add_argument("--views", type=of_type.whole(), help="reference views of an identity; all by default")
    verbs.add_parser("begin", parents=[computing], help="train on from models/miniworld instead of from nothing")
    writing = verbs.add_parser("export", parents=[computing], help="write models/miniworld in half precision")
    writing.add_argument("--models", type=of_type.path, help="folder to write; models/miniworld by default")
    verbs.add_parser("train-all", add_help=False, help="every recipe in order, within --minutes; see train-all --help")
    locating = verbs.add_parser("detector", parents=[computing], help="train the detector; after judges")
    locating.add_argument("--steps", type=of_type.whole(), default=detector.STEPS)
    verbs.add_parser("flux-export", parents=[computing], help="write models/miniworld/flux and flux_index in 8 bits")
    _add_experiments(verbs, computing)
    return parser


def _add_experiments(verbs, computing: argparse.ArgumentParser) -> None:
    """Add the verbs that draw sheets, measure and ablate."""
    verbs.add_parser("sheets", parents=[computing], help="contact sheets of renders, reconstructions and samples")
    showing = verbs.add_parser("demo", help="learn a held-out relation from 5 triplets, draw it, count; into --out")
    showing.add_argument("--threads", type=of_type.whole(), default=2, help="processes of one thread each, at once")
    removing = verbs.add_parser("ablate", help="what each part of the method brings; into --out and the model card")
    removing.add_argument("--anew", action="store_true", help="count rows anew that the model card already has")
    learning = verbs.add_parser(
        "flux-ablate", help="learn a held-out relation on the small Flux in every way; into --out"
    )
    learning.add_argument("--sites", choices=SITES, default="T", help="of rows that do not study sites")
    learning.add_argument("--pictures", type=of_type.whole(), default=ablate_flux.PICTURES, help="of a row and seed")
    for verb, seeds in ((removing, ablation_rows.SEEDS), (learning, ablate_flux.SEEDS)):
        verb.add_argument(
            "--minutes", type=of_type.positive, default=600.0, help="begin nothing new after these; call again"
        )
        verb.add_argument("--seeds", type=int, nargs="+", default=seeds, choices=seeds)
        verb.add_argument("--threads", type=of_type.whole(), default=2)
    counting = verbs.add_parser("measure", parents=[computing], help="count what the shipped models do")
    counting.add_argument("--models", type=of_type.path, help="folder of exported models; models/miniworld by default")
    counting.add_argument("--sampler-steps", type=of_type.whole(), help="of the sampler; as ever by default")
    comparing = verbs.add_parser("flux-measure", parents=[computing], help="count what routing does to identities")
    for verb in (counting, comparing):
        verb.add_argument("--pictures", type=of_type.whole(), default=56)


def draw(args: argparse.Namespace) -> None:
    """Run the verbs render, truth and creatures."""
    if args.verb == "creatures":
        lines = map(str, write_creatures(FOLDER / "creatures"))
    elif args.verb == "render":
        size = CorpusSize(args.scenes, args.identities, args.portraits, args.seed)
        lines = render_corpus(args.out / "corpus", size, args.processes)
    else:
        lines = render_labelled(args.out / "labelled", args.scenes, args.seed, args.processes)
    for line in lines:
        say(line)


def train(args: argparse.Namespace) -> None:
    """Run a recipe with the settings of its module, changed by --batch, --lr and --steps."""
    run, settings, _ = TRAINERS[args.verb]
    more = {}
    if args.verb == "flux" and args.references == "numbered":
        run, settings = flux.train_index, flux.INDEX
    elif args.verb == "flux":
        more = {"routing": args.routing == "on"}
    changes = {"batch_size": args.batch, "lr": args.lr, "steps": args.steps}
    changes = {key: value for key, value in changes.items() if value is not None}
    run(args.out, torch.device(args.device), args.minutes, replace(settings, **changes), **more)


def look(args: argparse.Namespace) -> None:
    """Run the verbs on finished models: begin, encode, detector, export, sheets, measure, and those of Flux."""
    # From a corpus to the folders that training reads and begins with.
    device = torch.device(args.device)
    if args.verb == "encode":
        extent = encoded_corpus.Extent(args.identities, args.views)
        for line in encoded_corpus.encode(args.out, tuple(args.parts), device, extent):
            say(line)
    elif args.verb == "begin":
        begun = ", ".join(warm_start.warm_start(args.out)) or "nothing, all runs are there"
        say(f"begun from models/{FOLDER.name}: {begun}")
    elif args.verb == "detector":
        network = detector.train(args.steps)
        say(json.dumps(detector.ship(network, args.out / detector.FILE, classifiers.load_trained(args.out))))
    # To models/miniworld and its card.
    elif args.verb == "export":
        models = args.models or FOLDER
        facts = export.export(args.out, models)
        say(f"{facts['bytes'] / 1e6:.1f} MB of weights in {models}; classifiers: {json.dumps(facts['judges'])}")
        if models == FOLDER:
            report.write_trained(FOLDER / "README.md")
    elif args.verb == "flux-export":
        say(f"{export.export_flux(args.out) / 1e6:.1f} MB of weights in models/{FOLDER.name}/flux and flux_index")
        report.write_trained(FOLDER / "README.md")
    # Counts and sheets of the shipped models.
    elif args.verb == "flux-measure":
        for line in flux_measure.measure_flux(args.out, args.pictures):
            say(line)
    elif args.verb == "measure":
        models = args.models or FOLDER
        world = load_miniworld(models).to(device)
        card, sheets_folder = models / "README.md", args.out / "sheets"
        facts = report.write_measurements(world, card, args.pictures, sheets_folder, args.sampler_steps)
        say(json.dumps(facts, indent=1))
    else:
        world, folder = load_miniworld().to(device), args.out / "sheets"
        sheets.render_sheet(folder / "renders.png")
        sheets.reconstruction_sheet(folder / "reconstructions.png", world)
        sheets.comparison_sheet(folder / "comparison.png", world, (*SEEN[:9], "hugging"))
        sheets.sample_sheet(folder / "samples.png", world)
        say(f"four sheets in {folder}")


def experiment(args: argparse.Namespace) -> None:
    """Run the verb ablate."""
    card = FOLDER / "README.md"
    complete = () if args.anew else ablation_report.complete_rows(card)
    for line in ablate.ablate(args.out, args.minutes, seeds=tuple(args.seeds), skip=complete):
        say(line)
    say(ablation_report.tables(ablation_report.write_results(args.out, card)))
    ablate.write_failures(args.out, tuple(args.seeds))


def experiment_on_flux(args: argparse.Namespace) -> None:
    """Run the verb flux-ablate."""
    out = args.out / "flux_ablation"
    for line in ablate_flux.ablate(out, args.minutes, args.sites, args.pictures, tuple(args.seeds)):
        say(line)
    say(ablate_flux.write_results(out))


def run(args: argparse.Namespace, again: str) -> None:
    """Run one verb."""
    if args.verb in ("render", "truth", "creatures"):
        draw(args)
        return
    torch.set_num_threads(args.threads)
    if args.verb == "demo":
        demo.run(args.out, again=again, workers=args.threads)
        return
    experiments = {"ablate": experiment, "flux-ablate": experiment_on_flux}
    (train if args.verb in TRAINERS else experiments.get(args.verb, look))(args)


def main() -> int:
    """Run the command; return its exit code."""
    if sys.argv[1:2] == ["train-all"]:  # has arguments of its own; its imports are its own too
        from .recipes import train_all

        return train_all.main(sys.argv[2:])
    args = arguments().parse_args()
    again = shell_command("training.miniworld", sys.argv[1:])
    return command(lambda: going_on(lambda: run(args, again), again), "%(asctime)s %(message)s")


if __name__ == "__main__":
    leave(main())
