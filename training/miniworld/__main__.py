"""The miniworld's door: python -m training.miniworld VERB (see --help).

Every training verb is bounded by --minutes, saves to --out and goes on from there when called again.
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch

from training.host_diffusers.miniworld import FOLDER

from . import clip, encoded, export, judges, refine, unet, vae
from .corpus import CorpusSize, render_corpus
from .truth import render_truth


def say(line: str) -> None:
    """Command-line output, in one place."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# verb: what trains, its settings, what it is
RECIPES = {
    "vae": (vae.train, vae.SETTINGS, "train the autoencoder"),
    "clip": (clip.train, clip.SETTINGS, "train the text encoders and the vision tower"),
    "unet": (unet.train, unet.SETTINGS, "train the UNet with its identity model"),
    "judges": (judges.train, judges.SETTINGS, "train the judges of relation and identity"),
    "refine": (refine.train, refine.SETTINGS, "train the decoder further, the latents unchanged"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m training.miniworld", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("out/miniworld"), help="where renders, checkpoints and sheets go"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    drawing = verbs.add_parser("render", help="draw the corpus all recipes train on")
    for name, value in vars(CorpusSize()).items():
        drawing.add_argument(f"--{name}", type=int, default=value)
    drawing.add_argument("--processes", type=int, default=2)
    labelled = verbs.add_parser("truth", help="draw the labelled scenes the judges train on")
    labelled.add_argument("--scenes", type=int, default=9000)
    labelled.add_argument("--seed", type=int, default=0)
    labelled.add_argument("--processes", type=int, default=2)
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--minutes", type=float, default=60.0, help="length of this call")
    training.add_argument("--device", default="cpu")
    training.add_argument("--threads", type=int, default=2)
    training.add_argument("--batch", type=int, help="samples a step; small on a CPU, large on a GPU")
    training.add_argument("--lr", type=float, help="learning rate")
    for verb, (_, _, words) in RECIPES.items():
        verbs.add_parser(verb, parents=[training], help=words)
    encoding = verbs.add_parser("encode", parents=[training], help="freeze vae, clip and distill; encode the corpus")
    encoding.add_argument("--parts", nargs="+", default=encoded.PARTS, choices=encoded.PARTS)
    encoding.add_argument("--views", type=int, help="reference views of an identity; all by default")
    verbs.add_parser("export", parents=[training], help="write models/miniworld in half precision")
    args = parser.parse_args()
    if args.verb == "render":
        size = CorpusSize(args.scenes, args.identities, args.portraits, args.seed)
        for line in render_corpus(args.out / "corpus", size, args.processes):
            say(line)
        return 0
    if args.verb == "truth":
        for line in render_truth(args.out / "truth", args.scenes, args.seed, args.processes):
            say(line)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.verb == "encode":
        for line in encoded.encode(args.out, device, tuple(args.parts), args.views):
            say(line)
    elif args.verb == "export":
        say(f"{export.export(args.out) / 1e6:.1f} MB of weights in models/{FOLDER.name}")
    else:
        run, settings, _ = RECIPES[args.verb]
        asked = {key: value for key in ("batch", "lr") if (value := getattr(args, key)) is not None}
        run(args.out, device, args.minutes, replace(settings, **asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
