"""Read and write LabelMe's JSON, also X-AnyLabeling's: rectangle, outlines and joints of a subject share a group_id.

What we wrote carries `flags.machine` and a hash of its numbers in `description`. Any other hash, or none, is a person's
work: read as such, and written back as it is. Masks are PNG files; the outlines here are a view of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from core.user_files import read_json_object

from ..common.polygons import fill_polygons
from ..data.skeletons import JOINTS, SKELETONS
from .edits import PictureEdits
from .joints import COUNTS, HIDDEN, NOWHERE
from .masks import outlines
from .options import LABELME

_STAMP = "relate "
_WRITTEN = "relate_joints"  # joints that were in the file, to notice a deleted one
_OUTLINES = "relate_outlines"  # number of each subject's outlines, to notice a deleted one


@dataclass(frozen=True, eq=False)
class LabelledSubject:
    """One subject as a file shows it.

    Attributes:
        name: its word.
        skeleton: `ap10k`, `coco` or `none`.
        box: fractions, or None.
        mask: (H, W) bool, or None.
        joints: (17, 3) x, y, visibility.
    """

    name: str
    skeleton: str
    box: Sequence[float] | None
    mask: np.ndarray | None
    joints: np.ndarray


def write_labelme(
    picture: str, size: tuple[int, int], subjects: Sequence[LabelledSubject], edits: PictureEdits, editor: str
) -> dict:
    """Make the file's content.

    Args:
        picture: file name beside it.
        size: width and height.
        subjects: of the picture, a person's work included.
        edits: the part of it that is a person's.
        editor: labelme writes rectangles as 2 points, X-AnyLabeling as 4.
    """
    shapes: list[dict[str, Any]] = []
    written: dict[str, list[int]] = {}
    outline_counts: dict[str, int] = {}
    scale = np.array(size, float)
    for index, subject in enumerate(subjects):
        # The box: two corners, or four.
        if subject.box is not None:
            x0, y0, x1, y1 = np.asarray(subject.box, float) * np.tile(scale, 2)
            corners = [[x0, y0], [x1, y1]] if editor == LABELME else [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
            shapes.append(_shape(subject.name, "rectangle", corners, index, index not in edits.boxes))
        # The outlines of the mask, and their number.
        if subject.mask is not None:
            polygons = edits.outlines.get(index) or outlines(subject.mask)
            outline_counts[str(index)] = len(polygons)
            shapes += [_shape(subject.name, "polygon", line, index, index not in edits.masks) for line in polygons]
        # The joints; the list of them makes a deleted one known.
        written[str(index)] = []
        names = SKELETONS[subject.skeleton].joints if subject.skeleton in SKELETONS else ()
        for joint, (name, (x, y, visibility)) in enumerate(zip(names, subject.joints)):
            if visibility > NOWHERE:
                machine = joint not in edits.joints.get(index, {})
                point = _shape(name, "point", [[x * size[0], y * size[1]]], index, machine, bool(visibility == HIDDEN))
                shapes.append(point)
            if visibility > NOWHERE or joint in edits.joints.get(index, {}):
                written[str(index)].append(joint)
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": picture,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
        _WRITTEN: written,
        _OUTLINES: outline_counts,
    }


def _shape(label: str, kind: str, points: Sequence, group: int, machine: bool, hidden: bool = False) -> dict[str, Any]:
    numbers = [[round(float(x), 4), round(float(y), 4)] for x, y in points]
    shape = {"label": label, "points": numbers, "group_id": group, "shape_type": kind, "difficult": hidden}
    shape |= {"flags": {"machine": machine}, "attributes": {}, "mask": None}
    return shape | {"description": _STAMP + _hash(shape) if machine else ""}


def _hash(shape: dict[str, Any]) -> str:
    """Hash what a person may change; a rectangle of 2 points is one of 4."""
    points = np.round(np.asarray(shape["points"], float), 2) + 0.0
    label, kind = shape.get("label"), shape.get("shape_type")
    if kind == "rectangle":
        points = np.array([points.min(0), points.max(0)])
    words = (label, shape.get("group_id"), kind, bool(shape.get("difficult")), points.tolist())
    return sha256(repr(words).encode()).hexdigest()[:12]


def read_labelme(path: Path, size: tuple[int, int], names: Sequence[str], skeletons: Sequence[str]) -> PictureEdits:
    """Read a person's changes.

    Args:
        path: of the JSON; no file is no change.
        size: of the picture.
        names: of the subjects in this picture; a shape without group_id belongs to the first of its name.
        skeletons: of the subjects.

    Raises:
        ValueError: not such a file; a shape without a subject or of another kind, an unknown joint, numbers that are
            none.
    """
    edits = PictureEdits()
    if not path.is_file():
        return edits
    content = read_json_object(path)
    shapes = content.get("shapes") or []
    if not isinstance(shapes, list):
        raise ValueError(f"{path}: expected 'shapes', a list. Save it again in the editor, or delete it.")

    # Sort the shapes by subject; boxes and joints whose hash is not ours are edits at once.
    joints_before, outlines_before = _before(content, len(names), path)
    polygons: dict[int, list[Any]] = {}
    machine_outlines: dict[int, int] = {}
    joints_now: dict[int, set[int]] = {}
    for number, shape in enumerate(shapes, 1):
        where = f"{path}, shape {number}"
        points = _points(shape, where)
        kind, label = shape.get("shape_type"), str(shape.get("label", ""))
        group = _group(shape, names, where)
        by_machine = shape.get("description") == _STAMP + _hash(shape)
        if kind == "rectangle" and not by_machine:
            edits.boxes[group] = box_around(points, size, where)
        elif kind == "polygon":
            if len(points) < 3:
                raise ValueError(f"{where}: expected an outline of 3 points or more, got {len(points)}. Draw it again.")
            polygons.setdefault(group, []).append(points)
            machine_outlines[group] = machine_outlines.get(group, 0) + by_machine
        elif kind == "point":
            joint = _joint(label, skeletons[group], where)
            joints_now.setdefault(group, set()).add(joint)
            if not by_machine:
                x, y = (float(points[0][axis] / size[axis]) for axis in (0, 1))
                edits.joints.setdefault(group, {})[joint] = x, y, HIDDEN if shape.get("difficult") else COUNTS
        elif kind != "rectangle":
            raise ValueError(f"{where}: expected a rectangle, polygon or point, got {kind!r}. Draw it as one of those.")

    # A mask is edited if one of its outlines is, or if there are fewer of them than we wrote.
    for group, group_polygons in polygons.items():
        if machine_outlines[group] < len(group_polygons) or len(group_polygons) < outlines_before[group]:
            edits.masks[group], edits.outlines[group] = fill_polygons(group_polygons, size), group_polygons
            if not edits.masks[group].any():
                raise ValueError(f"{path}: the outline of {names[group]} holds no pixel; draw it again.")

    # A joint that we wrote and that is gone was deleted.
    for group, joints in joints_before.items():
        for joint in joints - joints_now.get(group, set()) - edits.joints.get(group, {}).keys():
            edits.joints.setdefault(group, {})[joint] = (0.0, 0.0, NOWHERE)
    return edits


def _before(content: dict[str, Any], subjects: int, path: Path) -> tuple[dict[int, set[int]], dict[int, int]]:
    """Read the joints of each subject that we wrote, and the number of its outlines."""
    joints, counts = content.get(_WRITTEN) or {}, content.get(_OUTLINES) or {}
    try:
        return (
            {index: {range(JOINTS).index(joint) for joint in joints.get(str(index), ())} for index in range(subjects)},
            {index: int(counts.get(str(index), 0)) for index in range(subjects)},
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path}: expected '{_WRITTEN}' and '{_OUTLINES}' as annotate wrote them. Restore both, or delete both."
        ) from error


def _points(shape: Any, where: str) -> np.ndarray:
    expected = f"{where}: expected 'points', a list of [x, y] in pixels. Draw it again in the editor."
    try:
        points = np.asarray(shape["points"], float)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(expected) from error
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(expected)
    return points


def _group(shape: dict[str, Any], names: Sequence[str], where: str) -> int:
    group, label = shape.get("group_id"), shape.get("label")
    if isinstance(group, int) and 0 <= group < len(names):
        return group
    if label in names:
        return list(names).index(label)
    if len(names) == 1:
        return 0
    raise ValueError(
        f"{where}: whose is it? Expected the label {' or '.join(names)}, or a group_id from 0, got {label!r}."
    )


def box_around(points: np.ndarray, size: Sequence[float] | np.ndarray, where: str) -> tuple[float, float, float, float]:
    """Return the bounds of points (N, 2) in pixels, cut at the picture's edges, as fractions of it.

    Raises:
        ValueError: nothing of it lies inside the picture; begins with `where`.
    """
    low, high = (points.min(0) / size).clip(0, 1), (points.max(0) / size).clip(0, 1)
    if (high - low).min() <= 0:
        raise ValueError(f"{where}: the box has no area inside the picture; draw it again.")
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _joint(label: str, skeleton: str, where: str) -> int:
    names = SKELETONS[skeleton].joints if skeleton in SKELETONS else ()
    if label not in names:
        raise ValueError(f"{where}: {label!r} is no joint of this subject; expected one of {', '.join(names)}.")
    return names.index(label)
