"""Triplets on disk: from the authors' layout to ours, and to the trainers that people own.

    python -m training.prepare --convert data/hug data/hugging                  triplets.jsonl, pictures beside it
    python -m training.prepare --convert data/shake data/shaking --relation "shaking hands with"
    python -m training.prepare --export ai-toolkit data/hugging out/hugging     or musubi, fal, replicate

Nothing is lost: pictures are copied as they are, skeletons are put in the subjects' order, boxes are the masks' tight
ones, and a predicate that the folder does not name is found in the prompt. An exported folder holds the trainer's
files, captions that name the reference images, a filled-in config, and a triplets.jsonl that points at the same files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .common import arguments as of_type
from .common.atomic_io import check_writable
from .common.cli import command, leave, say
from .common.errors import UserErrors, all_or_faults
from .common.sheets import save_picture
from .config import DataConfig
from .data import exporters
from .data.dataset import load_triplets, prepare
from .data.exporters import LAYOUTS
from .data.preview import triplet_sheet
from .data.triplet import Triplet
from .data.triplet_lines import triplet_line


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--convert", nargs=2, type=of_type.path, metavar=("FROM", "TO"))
    what.add_argument("--export", nargs=3, metavar=("KIND", "FROM", "OUT"), help=f"KIND: {', '.join(LAYOUTS)}")
    parser.add_argument("--relation", default="", help="its name; helps to find the predicate in the prompts")
    options = parser.parse_args(arguments)
    if options.convert:
        return command(lambda: convert(*options.convert, options.relation))
    kind, *paths = options.export
    if kind not in LAYOUTS:
        parser.error(f"argument --export: expected KIND to be one of {', '.join(LAYOUTS)}, got '{kind}'")
    try:
        source, target = map(of_type.path, paths)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --export: {error}")
    return command(lambda: export(kind, source, target, options.relation))


def convert(source: Path, target: Path, relation: str = "") -> None:
    """Write ``target/triplets.jsonl`` and its pictures, the whole folder or nothing, and a sheet to look at.

    Args:
        source: a folder in either layout.
        target: a folder that does not exist yet.
        relation: its name.

    Raises:
        UserErrors: of the triplets; the target exists.
    """
    triplets, _ = all_or_faults(
        lambda: load_triplets(DataConfig(folder=str(source), fit="pad"), relation), lambda: _check_target(target)
    )
    with _whole_folder(target) as whole:
        lines = [json.dumps(_line(triplet, index, whole)) for index, triplet in enumerate(triplets)]
        (whole / "triplets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        pictures = DataConfig(folder=str(whole), fit="pad", image_px=512)
        examples = [prepare(triplet, pictures) for triplet in load_triplets(pictures, relation)]
        save_picture(triplet_sheet(examples), whole / "preview.png")
    say(f"wrote {len(triplets)} triplets to {target / 'triplets.jsonl'}; look at {target / 'preview.png'}")


def export(kind: str, source: Path, target: Path, relation: str = "") -> None:
    """Write ``target`` as a trainer's data folder with its config, the whole folder or nothing.

    Args:
        kind: a key of `exporters.LAYOUTS`.
        source: a folder of triplets in either layout.
        target: a folder that does not exist yet.
        relation: its name.

    Raises:
        UserErrors: of the triplets; the target exists; subjects that the trainer cannot take.
    """

    def load() -> list[Triplet]:
        triplets = load_triplets(DataConfig(folder=str(source), fit="pad"), relation)
        if faults := exporters.export_faults(triplets, kind):
            raise UserErrors(faults)
        return triplets

    triplets, _ = all_or_faults(load, lambda: _check_target(target))
    with _whole_folder(target) as whole:
        exporters.export(triplets, kind, whole, target)
    say(f"wrote {len(triplets)} triplets for {kind} to {target}: {', '.join(_configs(target))}")


def _configs(folder: Path) -> list[str]:
    """List the files for the trainer itself."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "triplets.jsonl")


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder that becomes ``target`` if all goes well, and is gone otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        yield whole
        whole.replace(target)


def _check_target(target: Path) -> None:
    if target.exists():
        raise UserErrors(f"{target} exists; choose a folder that does not, so that nothing is overwritten.")
    check_writable(target.parent)


def _line(triplet: Triplet, index: int, folder: Path) -> dict:
    """Copy the pictures of a triplet; return its line of the file."""

    def copied(path: Path, name: str) -> str:
        file = f"{index}/{name}{path.suffix.lower()}"
        (folder / str(index)).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / file)
        return file

    return triplet_line(triplet, copied)


if __name__ == "__main__":
    leave(main())
