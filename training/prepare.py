"""Triplets on disk, from the authors' layout to ours.

    python -m training.prepare --convert data/hug data/hugging                  triplets.jsonl, pictures beside it
    python -m training.prepare --convert data/shake data/shaking --relation "shaking hands with"

Nothing is lost: pictures are copied as they are, skeletons are put in the subjects' order, boxes are the masks' tight
ones, and a predicate that the folder does not name is found in the prompt.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from .common import arguments as of_type
from .common.atomic_io import check_writable
from .common.cli import command, leave, say
from .common.errors import UserErrors, all_or_faults
from .common.sheets import save_picture
from .config import DataConfig
from .data.dataset import load_triplets, prepare
from .data.preview import triplet_sheet
from .data.triplet import Triplet


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--convert", nargs=2, type=of_type.path, metavar=("FROM", "TO"), required=True)
    parser.add_argument("--relation", default="", help="its name; helps to find the predicate in the prompts")
    options = parser.parse_args(arguments)
    return command(lambda: convert(*options.convert, options.relation))


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
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        lines = [json.dumps(_entry(triplet, index, whole)) for index, triplet in enumerate(triplets)]
        (whole / "triplets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        pictures = DataConfig(folder=str(whole), fit="pad", image_px=512)
        examples = [prepare(triplet, pictures) for triplet in load_triplets(pictures, relation)]
        save_picture(triplet_sheet(examples), whole / "preview.png")
        whole.replace(target)
    say(f"wrote {len(triplets)} triplets to {target / 'triplets.jsonl'}; look at {target / 'preview.png'}")


def _check_target(target: Path) -> None:
    if target.exists():
        raise UserErrors(f"{target} exists; choose a folder that does not, so that nothing is overwritten.")
    check_writable(target.parent)


def _entry(triplet: Triplet, index: int, folder: Path) -> dict:
    """One line of the file; copies the pictures."""

    def copied(path: Path, name: str) -> str:
        file = f"{index}/{name}{path.suffix.lower()}"
        (folder / str(index)).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / file)
        return file

    return {
        "target": copied(triplet.target, "target"),
        "concepts": [copied(path, f"concept{i}") for i, path in enumerate(triplet.concepts)],
        "prompt": triplet.prompt,
        "relation": triplet.predicate,
        "names": list(triplet.names),
        "boxes": [[round(edge, 6) for edge in box] for box in triplet.facts.boxes.tolist()],
        "masks": [copied(path, f"mask{i}") for i, path in enumerate(triplet.masks)],
        "keypoints_target": _rounded(triplet.keypoints_target),
        "keypoints_concepts": _rounded(triplet.keypoints_concepts),
    }


def _rounded(keypoints) -> list:
    """Six decimals: a thousandth of a pixel."""
    return [[[round(number, 6) for number in joint] for joint in skeleton] for skeleton in keypoints.tolist()]


if __name__ == "__main__":
    leave(main())
