"""RelationBench's scores of any folder of pictures (DreamRelation, arXiv:2410.23280).

    python -m training.evaluate PICTURES --prompts prompts.jsonl --out out/evaluation
    python -m training.evaluate PICTURES --prompts prompts.jsonl --clip ViT-B-32 --clip-weights clip.safetensors
    python -m training.evaluate PICTURES --prompts prompts.jsonl --clip miniworld
    python -m training.evaluate relationbench --subjects photographs/ --out prompts.jsonl
    python -m training.evaluate miniworld --relation hugging --out scenes/

The prompts file has one JSON object a line:

    {"picture": "0001.png", "prompt": "A cat is hugging a plushie bear.", "relation": "hugging",
     "references": ["cat.jpg", "bear.jpg"], "names": ["cat", "plushie bear"]}

Pictures are looked for in PICTURES, references beside the prompts file. Only "picture" and "prompt" are needed: without
"relation" spaCy finds it, without references there is no CLIP-I and no DINO. `relationbench` writes such a file: the 25
templates filled with your own subjects; `miniworld` one of drawn scenes, in which --exact counts what really happens.
Written: table.md, scores.json, sheet.png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .common.atomic_io import write_text
from .common.cli import command, say
from .common.errors import Faults
from .common.sheets import save_picture
from .evaluation.benchmarks import command as convert
from .evaluation.predicate_parser import MODEL, Parser
from .evaluation.prompts import Entry, read_prompts
from .evaluation.relationbench import prompts_text, relationbench

CLIP, DINO = "openai/clip-vit-base-patch32", "facebook/dino-vits16"  # DreamBooth's (arXiv:2208.12242)
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    writers = {"relationbench": (_relationbench_parser, write_relationbench),
               "miniworld": (_miniworld_parser, write_miniworld), "convert": (convert.parser, convert.run)}
    parser, run = writers.get(arguments[0] if arguments else "", (_parser, evaluate))
    options = parser().parse_args(arguments if run is evaluate else arguments[1:])
    return command(lambda: run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of generated pictures")
    parser.add_argument("--prompts", type=Path, required=True, help="what each picture should show, JSON lines")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"), help="folder to write to")
    parser.add_argument("--clip", default=CLIP,
                        help="a folder of transformers or a hub's owner/name, an open_clip architecture, or miniworld")
    parser.add_argument("--clip-weights", default="", help="of an open_clip architecture: a file or one of open_clip's "
                        "tags; a file of OpenAI's weights needs --clip ViT-B-32-quickgelu")
    parser.add_argument("--dino", help=f"a folder of transformers or a hub's owner/name, or none; {DINO}, but none "
                        "with --clip miniworld")
    parser.add_argument("--exact", action="store_true", help="count relations, identities and confusions as well; for "
                        "the miniworld's scenes only")
    parser.add_argument("--spacy", default=MODEL, help="pipeline that finds predicates: a name or a folder")
    parser.add_argument("--batch", type=int, default=32, help="pictures encoded at once")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    return parser


def _relationbench_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate relationbench", description="Writes the prompts "
                                     "file of RelationBench for your own subjects: each of its 25 templates with four "
                                     "of them, or four pairs.")
    parser.add_argument("--subjects", type=Path, required=True,
                        help="folder with a picture, or a folder of pictures, of each subject; its name is the subject")
    parser.add_argument("--out", type=Path, required=True, help="prompts file to write, JSON lines")
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each case")
    return parser


def _miniworld_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate miniworld", description="Writes scenes of the "
                                     "miniworld to draw and to measure with --exact: prompts, boxes, references, and "
                                     "the true renders in truth/.")
    parser.add_argument("--relation", required=True, help="e.g. hugging")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of the scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


def write_relationbench(options: argparse.Namespace) -> None:
    """The verb `relationbench`.

    Raises:
        Faults: no subjects; the file exists.
    """
    if options.seeds < 1:
        raise Faults(f"--seeds {options.seeds}: expected at least 1.")
    if options.out.exists():
        raise Faults(f"--out {options.out} exists; choose a file that does not, so that nothing is overwritten.")
    text = prompts_text(options.subjects, options.out.parent, options.seeds)
    write_text(options.out, text)
    say(f"wrote {len(text.splitlines())} lines to {options.out}. Draw each prompt with its references and its seed; "
        f"save it under the name in 'picture'. As published: {relationbench()['settings']}.")


def write_miniworld(options: argparse.Namespace) -> None:
    """The verb `miniworld`.

    Raises:
        Faults: no such relation, no scenes; the file exists.
    """
    from .miniworld.experiments.exact import write_scenes

    if options.scenes < 1:
        raise Faults(f"--scenes {options.scenes}: expected at least 1.")
    write_scenes(options.out, options.relation, options.scenes, options.seed)
    say(f"wrote {options.scenes} scenes to {options.out / 'prompts.jsonl'}. Draw each prompt with its references in "
        "its boxes; save it under the name in 'picture'; measure with --clip miniworld --exact.")


def evaluate(options: argparse.Namespace) -> None:
    """Measure a folder.

    Raises:
        Faults: of the prompts file, the pictures, the encoders.
    """
    from .evaluation.report import report_json, summaries, table_text
    from .evaluation.score_images import score_pictures
    from .evaluation.sheet import contact_sheet
    from .host_diffusers.embedders import load_clip, load_dino

    if options.batch < 1:
        raise Faults(f"--batch {options.batch}: expected at least 1.")
    entries = read_prompts(options.prompts, options.pictures)
    dtype, dino_name = DTYPES[options.dtype], options.dino or ("none" if options.clip == "miniworld" else DINO)
    predicates, clip, dino, (exact_text, exact) = all_or_faults(
        lambda: find_predicates(entries, options.spacy),
        lambda: load_clip(options.clip, options.clip_weights, options.device, dtype),
        lambda: None if dino_name == "none" else load_dino(dino_name, options.device, dtype),
        lambda: count_exactly(entries) if options.exact else ("", {}))
    scores = score_pictures(entries, predicates, clip, dino, options.batch)
    backbones = {"CLIP": clip.name} | ({"DINO": dino.name} if dino else {})
    table = summaries(entries, scores)
    text = table_text(table, backbones) + exact_text
    whole = report_json(table, backbones, entries, predicates, scores, exact)
    write_text(options.out / "table.md", text)
    write_text(options.out / "scores.json", whole)
    save_picture(contact_sheet(entries, predicates, scores), options.out / "sheet.png")
    say(text)
    say(f"wrote table.md, scores.json and sheet.png to {options.out}")


def all_or_faults(*steps: Callable[[], Any]) -> list[Any]:
    """The results of all steps, or what is wrong with any of them in one report.

    Raises:
        Faults: of every step.
    """
    results, faults = [], []
    for step in steps:
        try:
            results.append(step())
        except Faults as found:
            faults += found.found
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise Faults(faults)
    return results


def count_exactly(entries: Sequence[Entry]) -> tuple[str, dict[str, Any]]:
    """The miniworld's own scores, as Markdown and for JSON.

    Raises:
        Faults: lines without a plan.
        ValueError: the judges are not there.
    """
    from .miniworld.experiments import exact

    found, known = exact.judged(entries)
    return "\n" + exact.exact_text(found, known), exact.facts(found, known)


def find_predicates(entries: Sequence[Entry], model: str) -> list[str | None]:
    """The given ones, and spaCy's for the rest; None where there is no verb, with a message.

    Raises:
        Faults: spaCy is needed and not installed.
    """
    parser = None if all(entry.relation for entry in entries) else Parser(model)
    found = [entry.relation or parser.predicate(entry.prompt, entry.names, entry.subjects) for entry in entries]
    lines = [str(entry.line) for entry, predicate in zip(entries, found) if not predicate]
    if lines:
        say(f"no predicate found in {len(lines)} of {len(entries)} prompts (lines {', '.join(lines[:10])}"
            f"{' ...' if len(lines) > 10 else ''}): CLIP-R leaves them out. Give 'relation' there.")
    return found


if __name__ == "__main__":
    sys.exit(main())
