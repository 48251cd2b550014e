"""Triplets as the data of other people's trainers, with captions that name the references and a filled-in config.

    ai-toolkit   target/0000.png + .txt, control_1/0000.png, control_2/0000.png, mask/0000.png; config.yaml
    musubi       target/0000.png + .txt, control/0000_0.png, control/0000_1.png; dataset.toml, train.sh
    fal          triplets.zip of 0000_start.png, 0000_start2.png, 0000_end.png, 0000.txt; request.json
    replicate    the same

The order of the controls is the order of the triplet's names. Where a trainer passes over a missing control in silence
and moves the later ones up a slot (ai-toolkit), or counts them by folder, every triplet must have as many: others are
refused. Names for replicate are those of its trainer's input schema; the _input, _target and _mask of the page's older
readme leave room for one subject only.

Beside the trainer's files stands ``triplets.jsonl``, which points at them, so that the folder is one of triplets too.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from core.prompt.wording import REFERENCES, Mention, bind

from ..common.image_files import open_image, open_mask, orientation
from .trainer_configs import WRITERS, ExportFacts
from .triplet import Triplet
from .triplet_lines import triplet_line

PAIRS, ARCHIVE = "pairs", "triplets.zip"
_UPRIGHT = 1
_DEPTH = 24  # place of a PNG's bits per channel; PIL opens 16 as 8


@dataclass(frozen=True)
class Layout:
    """Where a trainer finds the files of one triplet; ``{stem}`` is its number, ``{slot}`` counts from 1.

    Attributes:
        target, caption: paths in the folder.
        controls: paths of the first control and of the further ones.
        mask: of all subjects together; empty: the trainer takes none.
        most: how many controls the trainer takes.
        equal: every triplet must have as many.
    """

    target: str
    caption: str
    controls: tuple[str, str]
    mask: str = ""
    most: int = 3
    equal: bool = True


_START_END = Layout(
    f"{PAIRS}/{{stem}}_end.png",
    f"{PAIRS}/{{stem}}.txt",
    (f"{PAIRS}/{{stem}}_start.png", f"{PAIRS}/{{stem}}_start{{slot}}.png"),
    equal=False,
)
LAYOUTS = {
    "ai-toolkit": Layout(
        "target/{stem}.png",
        "target/{stem}.txt",
        ("control_1/{stem}.png", "control_{slot}/{stem}.png"),
        "mask/{stem}.png",
    ),
    "musubi": Layout(
        "target/{stem}.png", "target/{stem}.txt", ("control/{stem}_0.png", "control/{stem}_{index}.png"), most=10
    ),
    "fal": replace(_START_END, most=4),
    "replicate": replace(_START_END, most=5),  # p-image-edit takes no more
}


def export_faults(triplets: Sequence[Triplet], kind: str) -> list[str]:
    """List what keeps triplets from a trainer: more controls than it takes, or not as many in each."""
    layout = LAYOUTS[kind]
    faults = [
        f"triplet {triplet.name}: {len(triplet.names)} subjects ({', '.join(triplet.names)}), {kind} takes at most "
        f"{layout.most} control images. Leave the triplet out."
        for triplet in triplets
        if len(triplet.names) > layout.most
    ]
    counts: dict[int, list[str]] = {}
    for triplet in triplets:
        counts.setdefault(len(triplet.names), []).append(triplet.name)
    if layout.equal and len(counts) > 1:
        tally = "; ".join(f"{count} in {', '.join(names[:3])}" for count, names in sorted(counts.items()))
        faults.append(
            f"{kind}: expected as many subjects in every triplet, got {tally}. A missing control would move the later "
            "ones up a slot: export them as folders of their own."
        )
    return faults


def export(triplets: Sequence[Triplet], kind: str, folder: Path, final: Path) -> None:
    """Write triplets for a trainer.

    Args:
        triplets: with their facts, none of them among `export_faults`.
        kind: a key of LAYOUTS.
        folder: empty; receives the files.
        final: the path that ``folder`` will have; configs name it.
    """
    # 1. images and captions, one triplet after the other
    layout, lines, captions = LAYOUTS[kind], [], []
    masked = bool(layout.mask) and all(triplet.masks for triplet in triplets)
    for number, triplet in enumerate(triplets):
        stem = f"{number:04d}"
        lines.append(json.dumps(_write_one(triplet, layout, stem, folder), ensure_ascii=False))
        captions.append(caption(triplet))
        _path(folder, layout.caption.format(stem=stem)).write_text(captions[-1] + "\n", encoding="utf-8")
        if masked:
            union = np.logical_or.reduce([open_mask(path) for path in triplet.masks])
            Image.fromarray(union.astype(np.uint8) * 255).save(_path(folder, layout.mask.format(stem=stem)))
    (folder / "triplets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if (folder / PAIRS).is_dir():
        _archive(folder / PAIRS, folder / ARCHIVE)
    # 2. the trainer's config
    facts = ExportFacts(
        folder=final.resolve(),
        relation=triplets[0].predicate,
        caption=captions[0],
        controls=tuple(str(final.resolve() / path) for path in json.loads(lines[0])["concepts"]),
        count=len(triplets),
        masked=masked,
    )
    for name, text in WRITERS[kind](facts).items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")  # sh reads one of them


def caption(triplet: Triplet) -> str:
    """Word a prompt for an edit model: each subject with the control image it comes from."""
    mentions = [Mention(name, f"image {slot}") for slot, name in enumerate(triplet.names, 1)]
    return " ".join(bind(triplet.prompt, mentions, REFERENCES).text.split())


def _write_one(triplet: Triplet, layout: Layout, stem: str, folder: Path) -> dict:
    """Write the images of one triplet and return its line of ``triplets.jsonl``."""

    def place(path: Path, what: str) -> str:
        kind = what.rstrip("0123456789")
        index = int(what[len(kind) :] or 0)
        form = {"target": layout.target, "concept": layout.controls[index > 0], "mask": "masks/{stem}_{index}.png"}[
            kind
        ]
        name = form.format(stem=stem, slot=index + 1, index=index)
        _save_png(path, _path(folder, name), is_mask=kind == "mask")
        return name

    return triplet_line(triplet, place)


def _path(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save_png(source: Path, target: Path, is_mask: bool) -> None:
    """Write an image as every trainer reads it alike: upright, opaque, 8 bits; such a PNG keeps its very bytes."""
    if is_mask:
        Image.fromarray(open_mask(source).astype(np.uint8) * 255).save(target)
        return
    with Image.open(source) as image:
        plain = image.format == "PNG" and image.mode == "RGB" and not image.has_transparency_data
        plain = plain and orientation(image) == _UPRIGHT
    data = source.read_bytes()
    if plain and data[_DEPTH] == 8:
        target.write_bytes(data)
    else:
        open_image(source).save(target)


def _archive(folder: Path, path: Path) -> None:
    """Zip the files of a folder, flat; equal files make equal archives."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(file.name, (1980, 1, 1, 0, 0, 0)), file.read_bytes())
