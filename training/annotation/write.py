"""Write the files of OUT: pictures, masks, files to edit, the review page, and triplets.jsonl last of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.user_files import read_json_object

from ..common.atomic_io import atomic_write, write_text
from ..common.errors import UserErrors
from ..common.image_files import open_image
from ..common.sheets import save_picture
from ..config import DataConfig
from ..data.dataset import load_triplets, prepare
from ..data.preview import triplet_sheet
from ..data.skeletons import SKELETONS
from .annotated import Annotated
from .coco import write_coco
from .edits import PictureEdits
from .joints import COUNTS
from .labelme import LabelledSubject, write_labelme
from .options import AnnotateOptions
from .report import REJECTED, Report, TripletReport
from .review import review_page
from .store import FOLDER, pixels_hash

LINES, COCO, WRITTEN_COCO, NEXT_COCO = "triplets.jsonl", "coco_keypoints.json", "written_coco.json", "next_coco.json"


def home_of(out: Path, name: str) -> Path:
    """Find a triplet's folder: among the accepted, or the rejected."""
    return out / REJECTED / name if (out / REJECTED / name).is_dir() else out / name


def labelled_subjects(one: Annotated, number: int) -> list[LabelledSubject]:
    """List the subjects of a triplet's picture as the files for editors show them."""
    names = one.raw.names if number == 0 else (one.raw.names[number - 1],)
    skeletons = one.skeletons if number == 0 else [one.skeletons[number - 1]]
    return [
        LabelledSubject(name, skeleton, subject.box, subject.mask, subject.joints)
        for name, skeleton, subject in zip(names, skeletons, one.pictures[number].subjects)
    ]


def write_all(
    out: Path,
    triplets: Sequence[Annotated],
    report: Report,
    edits: Mapping[tuple[str, int], PictureEdits],
    options: AnnotateOptions,
) -> None:
    """Write or rewrite every file of OUT."""
    # A folder goes where its verdict says, then its pictures, masks and JSON are written.
    for one, verdict in zip(triplets, report.triplets):
        home, elsewhere = out / one.raw.name, out / REJECTED / one.raw.name
        if not verdict.accepted:
            home, elsewhere = elsewhere, home
        if elsewhere.is_dir():
            home.parent.mkdir(parents=True, exist_ok=True)
            elsewhere.replace(home)
        _write_pictures(one, out, home, edits, options)

    # Make the lines of triplets.jsonl, accepted and rejected, and the subjects of every picture.
    lines = {
        kind: [
            json.dumps(_line(one, verdict, kind == REJECTED), ensure_ascii=False)
            for one, verdict in zip(triplets, report.triplets)
            if verdict.complete and verdict.accepted == (kind != REJECTED)
        ]
        for kind in ("", REJECTED)
    }
    shapes = [
        (f"{folder}{one.raw.name}/{stem}.png", one.raw.name, number, picture.size, labelled_subjects(one, number))
        for one, verdict in zip(triplets, report.triplets)
        for folder in ("" if verdict.accepted else f"{REJECTED}/",)
        for number, (stem, picture) in enumerate(zip(one.raw.stems(), one.pictures))
    ]

    # Write what people look at and edit.
    _write_json(out / FOLDER / NEXT_COCO, write_coco(shapes))
    _write_json(out / COCO, write_coco(shapes))
    (out / FOLDER / NEXT_COCO).replace(out / FOLDER / WRITTEN_COCO)
    write_text(out / "skeletons.yaml", _skeletons_yaml())
    write_text(out / "review.html", review_page(triplets, report, {one[0]: one[4] for one in shapes}))
    _write_json(out / "report.json", {**_others_facts(out / "report.json"), **report.table()})
    rejected_lines = out / REJECTED / LINES
    if options.keep_rejected and lines[REJECTED]:
        write_text(rejected_lines, "\n".join(lines[REJECTED]) + "\n")
    else:
        rejected_lines.unlink(missing_ok=True)

    # triplets.jsonl is last: it stays only if training can read it.
    if not lines[""]:
        (out / LINES).unlink(missing_ok=True)
        return
    write_text(out / LINES, "\n".join(lines[""]) + "\n")
    config = DataConfig(folder=str(out), fit="pad", image_px=512)
    try:
        loaded = load_triplets(config, options.relation)  # whoever trains on it reads it in the same way
    except UserErrors:
        (out / LINES).unlink()  # nothing that training would refuse stays under this name
        raise
    save_picture(triplet_sheet([prepare(triplet, config) for triplet in loaded]), out / "preview.png")


def coco_as_written(out: Path) -> Path:
    """Find what we wrote into the COCO file last; a kill may have come between the file and that note of it."""
    own, latest = out / COCO, out / FOLDER / NEXT_COCO
    written = own.is_file() and latest.is_file() and own.read_bytes() == latest.read_bytes()
    return latest if written else out / FOLDER / WRITTEN_COCO


def _others_facts(path: Path) -> dict[str, Any]:
    """Read what `training.generate` has added to an earlier report; nothing from one that cannot be read."""
    try:
        before = read_json_object(path)
    except ValueError:  # the report is written anew, so its faults are of no interest
        return {}
    return {key: value for key, value in before.items() if key == "generation"}


def _write_pictures(
    one: Annotated, out: Path, home: Path, edits: Mapping[tuple[str, int], PictureEdits], options: AnnotateOptions
) -> None:
    """Write the pictures upright as RGB PNG, their JSON for editors, and the masks."""
    for number, (stem, picture) in enumerate(zip(one.raw.stems(), one.pictures)):
        file = home / f"{stem}.png"
        if not file.is_file() or picture.path != file and pixels_hash(open_image(file)) != picture.digest:
            save_picture(open_image(picture.path), file)
        picture.path = file
        edit = edits.get((one.raw.name, number), PictureEdits())
        subjects = labelled_subjects(one, number)
        _write_json(home / f"{stem}.json", write_labelme(file.name, picture.size, subjects, edit, options.editor))
        for index, subject in enumerate(picture.subjects):
            if subject.mask is not None:
                path = out / _mask_file(one, number, index)
                image = Image.fromarray(subject.mask.astype(np.uint8) * 255)
                atomic_write(path, lambda temporary, image=image: image.save(temporary, format="PNG"))


def _mask_file(one: Annotated, number: int, index: int) -> str:
    stems = one.raw.stems()
    whose = stems[index + 1] if number == 0 else stems[number]
    return f"masks/{one.raw.name}_{stems[number]}_{whose}.png"


def _line(one: Annotated, verdict: TripletReport, rejected: bool) -> dict[str, Any]:
    """Make a line of triplets.jsonl; paths are relative to the folder that the file is in."""
    stems = [f"{one.raw.name}/{stem}.png" for stem in one.raw.stems()]
    pairs = one.pairs()
    line: dict[str, Any] = {
        "target": stems[0],
        "concepts": stems[1:],
        "prompt": one.prompt,
        "relation": one.predicate,
        "names": list(one.raw.names),
        "boxes": [[round(float(edge), 6) for edge in in_target.box] for _, in_target, _, _ in pairs],
        "keypoints_target": [_counted(in_target.joints) for _, in_target, _, _ in pairs],
        "keypoints_concepts": [_counted(concept.joints) for _, _, _, concept in pairs],
        "kinds": list(one.kinds),
        "skeletons": list(one.skeletons),
        "scores": {name: gate.value for name, gate in verdict.gates.items() if gate.value is not None},
        "origin": one.origin,
    }
    if all(in_target.mask is not None for _, in_target, _, _ in pairs):
        above = "../" if rejected else ""
        line["masks"] = [above + _mask_file(one, 0, index) for index in range(len(pairs))]
    return line


def _counted(joints: np.ndarray) -> list[list[float]]:
    """Write joints as training reads them: those that do not count have visibility 0."""
    return [[round(float(x), 6), round(float(y), 6), int(v == COUNTS)] for x, y, v in joints]


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _skeletons_yaml() -> str:
    """Write X-AnyLabeling's list of joints."""
    rows = [f"  {one.category}: [{', '.join(one.joints)}]" for one in SKELETONS.values()]
    return "\n".join(["has_visible: true", "classes:", *rows]) + "\n"
