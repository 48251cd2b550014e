"""Read back what people have changed in OUT: JSON beside the pictures, COCO keypoints, decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.user_files import read_json_object

from ..common.errors import UserErrors
from ..common.image_files import image_size, open_image
from .annotated import Annotated
from .coco import read_coco
from .edits import PictureEdits
from .labelme import read_labelme
from .report import REJECT
from .store import FOLDER, pixels_hash
from .write import WRITTEN_COCO, home_of

STATE = "state.json"
Edits = dict[tuple[str, int], PictureEdits]


def read_edits(out: Path, annotated: Sequence[Annotated], coco: Path | None = None) -> Edits:
    """Read what people have changed in OUT: the JSON beside the pictures, and COCO keypoints, which count for more.

    Raises:
        UserErrors: files that cannot be read, all of them; a raw picture that is no longer the one edited.
    """
    if not (out / FOLDER / STATE).is_file():
        return {}
    state, faults, edits = read_json_object(out / FOLDER / STATE)["triplets"], [], {}
    for one in annotated:
        home = home_of(out, one.raw.name)
        if one.raw.name not in state or not home.is_dir():
            continue
        skeletons = state[one.raw.name]["skeletons"]
        for number, (stem, picture) in enumerate(zip(one.raw.stems(), one.pictures)):
            names = one.raw.names if number == 0 else (one.raw.names[number - 1],)
            own = skeletons if number == 0 else skeletons[number - 1 : number]
            try:
                file, side = home / f"{stem}.png", home / f"{stem}.json"
                edit = read_labelme(side, image_size(file) if file.is_file() else picture.size, names, own)
                if file.is_file() and pixels_hash(open_image(file)) != picture.digest:
                    if edit:
                        faults.append(
                            f"{picture.path}: not the picture that {side} was edited on. Give the triplet a new name, "
                            f"or delete {home}."
                        )
                    file.unlink()
                    edit = PictureEdits()
                edits[one.raw.name, number] = edit
            except (ValueError, IndexError) as error:
                faults.append(str(error))
    try:
        _merge_coco(out, edits, coco)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise UserErrors(faults)
    return {key: edit for key, edit in edits.items() if edit}


def _merge_coco(out: Path, edits: Edits, coco: Path | None) -> None:
    """Add what was changed in COCO keypoints since we wrote them."""
    path, before = coco or out / "coco_keypoints.json", out / FOLDER / WRITTEN_COCO
    if coco is None and not path.is_file() or not before.is_file():
        return
    for key, edit in read_coco(path, read_json_object(before)).items():
        known = edits.setdefault(key, PictureEdits())
        known.boxes |= edit.boxes
        for subject, joints in edit.joints.items():
            known.joints.setdefault(subject, {}).update(joints)


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
