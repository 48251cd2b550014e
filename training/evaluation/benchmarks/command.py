"""`python -m training.evaluate convert SET --from FOLDER --out prompts.jsonl`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.cli import say
from ...common.errors import UserErrors
from ...common.image_files import open_picture
from ...common.sheets import FAINT, INK, PAPER, font, save_picture
from .catalogue import SETS, Benchmark
from .lines import Case, check_cases, prompts_lines, subset

_SHOWN, _SIDE, _GAP = 24, 120, 10


def parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    sets = "\n".join(f"  {name:17} {one.title}: {one.size}; {one.source}; {one.licence}" for name, one in SETS.items())
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate convert",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write the prompts file of a public set from files that you have; nothing is downloaded. Written "
        f"beside it: a JSON of its facts and a sheet of its first cases.\n\n{sets}",
    )
    parser.add_argument("set", choices=SETS, metavar="SET")
    parser.add_argument("--from", type=of_type.path, required=True, dest="source", help="folder of the set's own files")
    parser.add_argument("--out", type=of_type.path, required=True, help="prompts file to write, JSON lines")
    parser.add_argument("--limit", type=int, help="a fixed pseudo-random subset; that of 50 is a part of that of 100")
    parser.add_argument("--seeds", type=int, default=1, help="pictures of each case")
    return parser


def run(options: argparse.Namespace) -> None:
    """Convert a set.

    Raises:
        UserErrors: files that are missing, all of them; the output exists; a bad number.
    """
    faults = [
        f"{name} {value}: expected at least 1."
        for name, value in (("--limit", options.limit), ("--seeds", options.seeds))
        if value is not None and value < 1
    ]
    if options.out.exists():
        faults.append(f"--out {options.out} exists; choose a file that does not, so that nothing is overwritten.")
    if not options.source.is_dir():
        faults.append(f"--from {options.source}: expected the folder of the set's files, found none.")
    if faults:
        raise UserErrors(faults)
    benchmark = SETS[options.set]
    say(f"reading {benchmark.title} from {options.source}")
    cases = subset(read_cases(benchmark, options.source), options.limit)
    check_cases(cases, options.source)
    overview = sheet(benchmark, cases)  # before anything is written: it opens pictures
    write_text(options.out, prompts_lines(cases, options.set, options.out.parent, options.seeds))
    write_text(
        options.out.with_suffix(".facts.json"), json.dumps(facts(options.set, cases, options.seeds), indent=1) + "\n"
    )
    save_picture(overview, options.out.with_suffix(".sheet.png"))
    say(
        f"{table(cases)}\n\nwrote {len(cases) * options.seeds} lines to {options.out}. Licence of {benchmark.title}: "
        f"{benchmark.licence}."
    )


def read_cases(benchmark: Benchmark, source: Path) -> list[Case]:
    """Return a set's cases; files of another format are one fault, not a traceback.

    Raises:
        UserErrors: see the set's reader.
    """
    try:
        return benchmark.read(source)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserErrors(
            f"--from {source}: its files are not in {benchmark.title}'s format "
            f"({type(error).__name__}: {error}); expected those of {benchmark.source}."
        ) from error


def table(cases: list[Case]) -> str:
    """Count cases and subjects of each part, Markdown."""
    parts = Counter(case.task or "all" for case in cases)
    lines = ["| part | cases | subjects a case |", "|---|---|---|"]
    for part, count in parts.items():
        sizes = sorted({len(case.references) for case in cases if (case.task or "all") == part})
        lines.append(f"| {part} | {count} | {', '.join(map(str, sizes))} |")
    return "\n".join([*lines, f"| **all** | {len(cases)} | |"])


def facts(name: str, cases: list[Case], seeds: int) -> dict:
    """Return the facts of a set that a report must name."""
    return {
        "set": name,
        "title": SETS[name].title,
        "source": SETS[name].source,
        "licence": SETS[name].licence,
        "cases": len(cases),
        "pictures": len(cases) * seeds,
        "parts": dict(Counter(case.task for case in cases)),
    }


def sheet(benchmark: Benchmark, cases: list[Case]) -> Image.Image:
    """Draw references and prompts of cases taken evenly from the set."""
    count = min(_SHOWN, len(cases))
    chosen = [cases[index * len(cases) // count] for index in range(count)]
    width = 2 * _GAP + 4 * (_SIDE + _GAP) + 640
    picture = Image.new("RGB", (width, 40 + count * (_SIDE + _GAP)), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_GAP, 10), f"{benchmark.title}: {count} of {len(cases)} cases", INK, font(16))
    for row, case in enumerate(chosen):
        top = 40 + row * (_SIDE + _GAP)
        for column, path in enumerate(case.references[:4]):
            tile = ImageOps.contain(open_picture(path), (_SIDE, _SIDE))
            picture.paste(Image.new("RGB", (_SIDE, _SIDE), FAINT), (_GAP + column * (_SIDE + _GAP), top))
            picture.paste(tile, (_GAP + column * (_SIDE + _GAP), top))
        left = 2 * _GAP + 4 * (_SIDE + _GAP)
        for line, text in enumerate([case.id, case.prompt[:95], case.prompt[95:190], " + ".join(case.names)]):
            pen.text((left, top + 4 + 22 * line), text, INK, font(13))
    return picture
