"""The miniworld's subject adapter (Subject-Diffusion, arXiv:2307.11410): train it and its ablations, and count.

    python -m training.miniworld.experiments.subject train --models models/miniworld --out out/subject
    python -m training.miniworld.experiments.subject train --out out/subject --variants all      with the ablation's six
    python -m training.miniworld.experiments.subject count --models models/miniworld --out out/subject

Every part goes on from where it was stopped. The shipped adapter is <out>/shipped/miniworld_subject.safetensors.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.cli import command, going_on, leave, say, shell_command
from ...host_diffusers.miniworld.architectures import FOLDER
from .subject_table import PICTURES, ROWS, count, counted_cells, table
from .subject_training import VARIANTS, train_variant


def arguments() -> argparse.ArgumentParser:
    """Make the parser of both verbs."""
    parser = argparse.ArgumentParser(
        prog="python -m training.miniworld.experiments.subject",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--models", type=of_type.path, default=FOLDER, help="laid out as models/miniworld")
    common.add_argument("--out", type=of_type.path, default=Path("out/subject"))
    common.add_argument("--threads", type=of_type.whole(), default=2)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", parents=[common], help="draw pictures and train variants on them")
    training.add_argument("--variants", nargs="+", default=["shipped"], choices=[*VARIANTS, "all"])
    training.add_argument("--pictures", type=of_type.whole(), default=3000, help="to draw, about")
    training.add_argument("--set", action="append", default=[], metavar="table.key=value", dest="overrides")
    counting = verbs.add_parser("count", parents=[common], help="draw held-out creatures and count what is right")
    counting.add_argument("--pictures", type=of_type.whole(), default=PICTURES, help="of every cell")
    counting.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    counting.add_argument("--steps", type=of_type.whole(), default=30, help="of the sampler")
    counting.add_argument("--minutes", type=of_type.positive, default=600.0, help="begin no cell after these")
    return parser


def run(args: argparse.Namespace, again: str) -> None:
    """Run one verb."""
    torch.set_num_threads(args.threads)
    if args.verb == "train":
        for variant in VARIANTS if "all" in args.variants else args.variants:
            say(f"{variant}: {train_variant(args.models, args.out, variant, args.pictures, args.overrides, again)}")
        return
    for line in count(args.models, args.out, args.pictures, args.rows, args.steps, args.minutes):
        say(line)
    cells = counted_cells(args.out)
    write_text(args.out / "counted.json", json.dumps(cells, indent=1) + "\n")
    write_text(args.out / "table.md", table(cells) + "\n")
    say(table(cells))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = arguments().parse_args(argv)
    again = shell_command("training.miniworld.experiments.subject", argv)
    logging.getLogger().setLevel(logging.INFO)
    return command(lambda: going_on(lambda: run(args, again), again))


if __name__ == "__main__":
    leave(main())
