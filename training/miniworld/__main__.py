"""The miniworld's door: python -m training.miniworld {render,vae} (see --help).

Every training verb is bounded by --minutes, saves to --out and goes on from there when called again.
"""

import argparse
import logging
import sys
from pathlib import Path

import torch

from . import clip, encoded, unet, vae
from .corpus import Corpus, CorpusSize, render_corpus


def say(line: str) -> None:
    """Command-line output, in one place."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


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
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--minutes", type=float, default=60.0, help="length of this call")
    training.add_argument("--device", default="cpu")
    training.add_argument("--threads", type=int, default=2)
    verbs.add_parser("vae", parents=[training], help="train the autoencoder")
    verbs.add_parser("clip", parents=[training], help="train the text encoders and the vision tower")
    encoding = verbs.add_parser(
        "encode", parents=[training], help="freeze these (and training.distill's) and encode the corpus"
    )
    encoding.add_argument("--parts", nargs="+", default=encoded.PARTS, choices=encoded.PARTS)
    verbs.add_parser("unet", parents=[training], help="train the UNet with its identity model")
    verbs.add_parser("refine", parents=[training], help="train the decoder alone further, the latents unchanged")
    args = parser.parse_args()
    if args.verb == "render":
        size = CorpusSize(args.scenes, args.identities, args.portraits, args.seed)
        for line in render_corpus(args.out / "corpus", size, args.processes):
            say(line)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.verb == "encode":
        for line in encoded.encode(args.out, device, tuple(args.parts)):
            say(line)
    elif args.verb == "unet":
        unet.train(args.out, device, args.minutes)
    elif args.verb == "refine":
        vae.refine(
            Corpus.open(args.out / "corpus"),
            encoded.frozen_vae(args.out, refined=False),
            args.out / "refine",
            device,
            args.minutes,
        )
    else:
        {"vae": vae, "clip": clip}[args.verb].train(
            Corpus.open(args.out / "corpus"), args.out / args.verb, device, args.minutes
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
