"""Measure pictures of subjects and relations, draw benchmarks, compare methods.

    python -m training.evaluate PICTURES --prompts prompts.jsonl --out out/evaluation
    python -m training.evaluate PICTURES --prompts prompts.jsonl --detector IDEA-Research/grounding-dino-tiny
    python -m training.evaluate PICTURES --prompts prompts.jsonl --judge Qwen/Qwen3-VL-8B-Instruct
    python -m training.evaluate PICTURES --prompts prompts.jsonl --against OTHER_PICTURES
    python -m training.evaluate PICTURES --prompts prompts.jsonl --clip miniworld
    python -m training.evaluate convert SET --from FOLDER --out prompts.jsonl
    python -m training.evaluate judge --labels labels.jsonl --pictures PICTURES --judge MODEL
    python -m training.evaluate judge page PICTURES --prompts prompts.jsonl --out label.html
    python -m training.evaluate relationbench --subjects photographs/ --out prompts.jsonl
    python -m training.evaluate relationbench run --subjects photographs/ --out out/relationbench
    python -m training.evaluate miniworld --relation hugging --scenes 24 --out scenes/

The prompts file has one JSON object per line:

    {"picture": "0001.png", "prompt": "A cat is hugging a plushie bear.", "relation": "hugging",
     "references": ["cat.jpg", "bear.jpg"], "names": ["cat", "plushie bear"], "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}

Pictures are looked for in PICTURES, references beside the prompts file. Only "picture" and "prompt" are needed: without
"relation" spaCy finds it, without references there is no CLIP-I and no DINO, without names no subject is detected.
Written: table.md, scores.json, sheet.png. What each command writes and means: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import arguments as of_type
from .common.atomic_io import check_writable, write_text
from .common.cli import command, leave, say
from .common.errors import UserErrors, all_or_faults
from .evaluation.benchmarks import command as convert
from .evaluation.judge import command as judge
from .evaluation.models import Worlds, add_arguments
from .evaluation.prompts import Entry
from .evaluation.relationbench import prompts_text, relationbench
from .evaluation.reproduce import command as reproduce


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first = arguments[0] if arguments else ""
    verbs = {
        "relationbench": (_relationbench_parser, write_relationbench),
        "judge": (judge.parser, lambda options: judge.run(options, WORLDS)),
        "miniworld": (_miniworld_parser, write_miniworld),
        "convert": (convert.parser, convert.run),
    }
    if arguments[:2] == ["relationbench", "run"]:
        parser, run, rest = reproduce.parser, lambda options: reproduce.run(options, WORLDS), arguments[2:]
    elif arguments[:2] == ["judge", "page"]:
        parser, run, rest = judge.page_parser, judge.run_page, arguments[2:]
    elif first in verbs:
        (parser, run), rest = verbs[first], arguments[1:]
    else:
        parser, run, rest = _parser, evaluate, arguments
    options = parser().parse_args(rest)
    return command(lambda: run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=of_type.path, help="folder of generated pictures")
    parser.add_argument("--prompts", type=of_type.path, required=True, help="what each picture should show, JSON lines")
    parser.add_argument("--out", type=of_type.path, default=Path("out/evaluation"), help="folder to write to")
    parser.add_argument(
        "--against",
        type=of_type.path,
        help="folder of another method's pictures of the same prompts: "
        "measured in the same way and compared pair by pair",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out lines whose picture is missing; their number is printed beside the scores",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="count relations, identities and confusions as well; for the miniworld's scenes only",
    )
    add_arguments(parser)
    return parser


def _relationbench_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate relationbench",
        description="Writes the prompts "
        "file of RelationBench for your own subjects: each of its 25 templates with four "
        "of them, or four pairs. 'relationbench run' draws and measures it as well.",
    )
    parser.add_argument(
        "--subjects",
        type=of_type.path,
        required=True,
        help="folder with a picture, or a folder of pictures, of each subject; its name is the subject",
    )
    parser.add_argument("--out", type=of_type.path, required=True, help="prompts file to write, JSON lines")
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each case")
    parser.add_argument("--cases", default="100", help="100: four of each template; or single x pair, e.g. 100x100")
    return parser


def _miniworld_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate miniworld",
        description="Writes scenes of the "
        "miniworld to draw and to measure with --exact: prompts, boxes, references, and "
        "the true renders in truth/.",
    )
    parser.add_argument("--relation", required=True, help="e.g. hugging")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=of_type.whole(0), default=0, help="of the scenes")
    parser.add_argument("--out", type=of_type.path, required=True, help="folder to write to")
    return parser


def write_relationbench(options: argparse.Namespace) -> None:
    """Write the prompts file of RelationBench (verb `relationbench`).

    Raises:
        UserErrors: no subjects; the file exists.
    """
    if options.seeds < 1:
        raise UserErrors(f"--seeds {options.seeds}: expected at least 1.")
    if options.out.exists():
        raise UserErrors(f"--out {options.out} exists; choose a file that does not, so that nothing is overwritten.")
    _, text = all_or_faults(
        lambda: check_writable(options.out.parent),
        lambda: prompts_text(options.subjects, options.out.parent, options.seeds, options.cases),
    )
    write_text(options.out, text)
    say(
        f"wrote {len(text.splitlines())} lines to {options.out}. Draw each prompt with its references and its seed; "
        f"save it under the name in 'picture'. As published: {relationbench()['settings']}."
    )


def write_miniworld(options: argparse.Namespace) -> None:
    """Write scenes of the miniworld and their true renders (verb `miniworld`).

    Raises:
        UserErrors: no such relation, no scenes; the file exists.
    """
    from .miniworld.experiments.exact import write_scenes

    if options.scenes < 1:
        raise UserErrors(f"--scenes {options.scenes}: expected at least 1.")
    all_or_faults(lambda: check_writable(options.out))
    write_scenes(options.out, options.relation, options.scenes, options.seed)
    say(
        f"wrote {options.scenes} scenes to {options.out / 'prompts.jsonl'}. Draw each prompt with its references in "
        "its boxes; save it under the name in 'picture'; measure with --clip miniworld --exact."
    )


def evaluate(options: argparse.Namespace) -> None:
    """Measure a folder, and compare it with another one if asked.

    Raises:
        UserErrors: of the prompts file, the pictures, the models.
    """
    from .evaluation.folders import measure_folders

    folders = {options.pictures.name: options.pictures}
    if options.against is not None:
        name = options.against.name if options.against.name != options.pictures.name else str(options.against)
        folders[name] = options.against
    measure_folders(folders, options, WORLDS)


def count_exactly(entries: Sequence[Entry]) -> tuple[str, dict[str, Any]]:
    """Return the miniworld's own scores, as Markdown and for JSON.

    Raises:
        UserErrors: lines without a plan.
        ValueError: the classifiers are missing.
    """
    from .miniworld.experiments import exact

    measurement, accuracy = exact.measure_entries(entries)
    return "\n" + exact.exact_text(measurement, accuracy), exact.facts(measurement, accuracy)


def open_miniworld_detector() -> Any:
    """Return the detector that `--detector miniworld` names."""
    from .miniworld.recipes.find_creatures import load_detector

    return load_detector()


def open_miniworld_judge() -> Any:
    """Return the judge that `--judge miniworld` names."""
    from .miniworld.experiments.yes_no_judge import open_judge

    return open_judge()


def open_miniworld_encoder() -> Any:
    """Return the encoder of looks that `--encoder miniworld` names."""
    from .miniworld.recipes.classifiers import load_shipped
    from .miniworld.recipes.find_creatures import TraitEncoder

    return TraitEncoder(load_shipped())


WORLDS = Worlds(
    {"miniworld": open_miniworld_detector},
    {"miniworld": open_miniworld_judge},
    count_exactly,
    {"miniworld": open_miniworld_encoder},
)

if __name__ == "__main__":
    leave(main())
