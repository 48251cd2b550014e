"""Read back what people have changed in OUT: JSON beside the pictures, COCO keypoints, decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.user_files import read_json_object

from ..common.errors import UserErrors
from ..common.image_files import image_size, open_image
from .annotated import Annotated
from .choose import Candidate
from .coco import read_coco
from .edits import PictureEdits
from .labelme import read_labelme
from .report import REJECT
from .store import FOLDER, pixels_hash
from .write import COCO, coco_as_written, home_of

STATE = "state.json"
Edits = dict[tuple[str, int], PictureEdits]


def read_edits(out: Path, annotated: Sequence[Annotated], coco: Path | None = None) -> Edits:
    """Read what people have changed in OUT: the JSON beside the pictures, and COCO keypoints, which count for more.

    Raises:
        UserErrors: files that cannot be read, all of them; a raw picture or its subjects are no longer those edited.
    """
    if not (out / FOLDER / STATE).is_file():
        return {}
    # Read the JSON beside every picture, with the names it was written for.
    rows = state_rows(out)
    faults: list[str] = []
    edits: Edits = {}
    changed_pictures: dict[tuple[str, int], str] = {}  # why the edits of a picture no longer fit it
    for one in annotated:
        home, row = home_of(out, one.raw.name), rows.get(one.raw.name)
        if row is None or not home.is_dir():
            continue
        edited_raw = replace(one.raw, names=tuple(row["names"]))  # as the files name them
        for number, stem in enumerate(edited_raw.stems()):
            key, file, side = (one.raw.name, number), home / f"{stem}.png", home / f"{stem}.json"
            names, own = edited_raw.names, row["skeletons"]
            if number:
                names, own = names[number - 1 : number], own[number - 1 : number]
            picture = one.pictures[number] if edited_raw.names == one.raw.names else one.target
            try:
                edits[key] = read_labelme(side, image_size(file) if file.is_file() else picture.size, names, own)
                if edited_raw.names != one.raw.names:
                    before, now = ", ".join(edited_raw.names), ", ".join(one.raw.names)
                    changed_pictures[key] = f"{side}: its subjects were {before}, now {now}."
                elif file.is_file() and pixels_hash(open_image(file)) != picture.digest:
                    changed_pictures[key] = f"{picture.path}: not the picture that {side} was edited on."
                elif number == 0:
                    places = enumerate(row.get("found") or ())
                    edits[key].file_boxes = {i: Candidate(tuple(place[0]), place[1]) for i, place in places if place}
            except ValueError as error:
                faults.append(str(error))

    # COCO keypoints count for more.
    try:
        _merge_coco(out, edits, coco)
    except ValueError as error:
        faults.append(str(error))

    # Edits of a picture that has changed since are no longer of use.
    faults += [
        f"{change} Give the triplet a new name, or delete {home_of(out, key[0])}."
        for key, change in changed_pictures.items()
        if edits[key]
    ]
    if faults:
        raise UserErrors(faults)
    return {key: edit for key, edit in edits.items() if edit}


def state_rows(out: Path) -> dict[str, Any]:
    """Read the rows that earlier runs saved of every triplet whose files may stand in OUT; empty if there was none.

    Raises:
        ValueError: not readable.
    """
    path = out / FOLDER / STATE
    state = read_json_object(path) if path.is_file() else {}
    return state.get("absent", {}) | state.get("triplets", {})


def _merge_coco(out: Path, edits: Edits, coco: Path | None) -> None:
    """Add the changes in COCO keypoints since we wrote them: in the folder's own file, then in one edited elsewhere."""
    own, before = out / COCO, coco_as_written(out)
    if not before.is_file():
        return
    for path in (*([own] if own.is_file() else []), *([coco] if coco else [])):
        for key, edit in read_coco(path, read_json_object(before)).items():
            picture_edits = edits.setdefault(key, PictureEdits())
            picture_edits.boxes |= edit.boxes
            for subject, joints in edit.joints.items():
                picture_edits.joints.setdefault(subject, {}).update(joints)


def read_decisions(out: Path, annotated: Sequence[Annotated]) -> Mapping[str, str]:
    """Read decisions.json of the review page: accept or reject by triplet.

    Raises:
        UserErrors: other words, triplets that are not here.
    """
    path = out / "decisions.json"
    if not path.is_file():
        return {}
    try:
        decisions = read_json_object(path)
    except ValueError as error:
        raise UserErrors(str(error)) from error
    names = {one.raw.name for one in annotated}
    faults = [f"{path}: no triplet {name!r} here." for name in decisions if name not in names]
    faults += [
        f"{path}, {name}: expected accept or reject, got {word!r}."
        for name, word in decisions.items()
        if word not in ("accept", REJECT)
    ]
    if faults:
        raise UserErrors(faults)
    return decisions
