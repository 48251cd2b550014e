"""Read and write COCO keypoints, as CVAT and FiftyOne do: one category per kind, pixels, visibility 0, 1, 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.user_files import read_json_object

from ..data.skeletons import SKELETONS
from .edits import PictureEdits
from .joints import COUNTS, NOWHERE
from .labelme import LabelledSubject, box_around
from .report import REJECTED

_SAME = 0.05  # pixels below which a number has not been changed
_CATEGORIES = {name: number for number, name in enumerate(SKELETONS, 1)}


def write_coco(pictures: Sequence[tuple[str, str, int, tuple[int, int], Sequence[LabelledSubject]]]) -> dict[str, Any]:
    """Make the file's content.

    Args:
        pictures: file, triplet, number in it (0 the target), size, subjects.
    """
    images, annotations = [], []
    for image_id, (file, triplet, number, size, subjects) in enumerate(pictures, 1):
        images.append({"id": image_id, "file_name": file, "width": size[0], "height": size[1]})
        for index, subject in enumerate(subjects):
            if subject.skeleton not in SKELETONS or subject.box is None:
                continue
            x0, y0, x1, y1 = (round(float(edge) * size[axis % 2], 4) for axis, edge in enumerate(subject.box))
            points = [
                [round(float(x) * size[0], 4), round(float(y) * size[1], 4), int(v)] for x, y, v in subject.joints
            ]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": _CATEGORIES[subject.skeleton],
                    "keypoints": [value for point in points for value in point],
                    "num_keypoints": sum(point[2] > NOWHERE for point in points),
                    "bbox": [x0, y0, round(x1 - x0, 4), round(y1 - y0, 4)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                    "attributes": {"name": subject.name, "triplet": triplet, "picture": number, "subject": index},
                }
            )
    categories = [
        {
            "id": _CATEGORIES[name],
            "name": skeleton.category,
            "supercategory": "subject",
            "keypoints": list(skeleton.joints),
            "skeleton": [[a + 1, b + 1] for a, b in skeleton.bones],
        }
        for name, skeleton in SKELETONS.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def read_coco(path: Path, before: Mapping[str, Any]) -> dict[tuple[str, int], PictureEdits]:
    """Read what a file changes.

    Args:
        path: an edited copy of our file; annotations are matched by picture and, where the tool kept them, by their
            attributes, else by their order within the picture.
        before: the file as we wrote it.

    Raises:
        ValueError: not such a file; a picture that is not ours; numbers that are none; a box outside its picture.
    """
    old, new = _by_subject(before, "coco_keypoints.json"), _by_subject(read_json_object(path), str(path))
    edits: dict[tuple[str, int], PictureEdits] = {}
    owners = {
        (_file(image), one["attributes"]["subject"]): (one["attributes"]["triplet"], one["attributes"]["picture"])
        for image in before["images"]
        for one in before["annotations"]
        if one["image_id"] == image["id"]
    }
    for (file, subject), (box, points, size) in new.items():
        if (file, subject) not in owners:
            raise ValueError(
                f"{path}: subject {subject} of {file} is not in this folder; edit its own coco_keypoints.json."
            )
        edit = edits.setdefault(owners[file, subject], PictureEdits())
        old_box, old_points, _ = old[file, subject]
        if np.abs(box - old_box).max() > _SAME:
            corners = np.array([box[:2], box[:2] + box[2:].clip(min=0)])
            edit.boxes[subject] = box_around(corners, size, f"{path}: subject {subject} of {file}")
        for joint in np.flatnonzero((np.abs(points - old_points) > [_SAME, _SAME, 0.5]).any(1)):
            x, y, visibility = points[joint]
            edit.joints.setdefault(subject, {})[int(joint)] = (float(x / size[0]), float(y / size[1]), int(visibility))
    return {key: edit for key, edit in edits.items() if edit}


def _file(image: Mapping[str, Any]) -> str:
    """Name an image wherever its triplet lies: it moves when it is accepted or rejected."""
    return str(image["file_name"]).removeprefix(f"{REJECTED}/")


def _by_subject(
    content: Mapping[str, Any], where: str
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sort box, keypoints and picture size by file and subject."""
    keypoints: dict[tuple[str, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    try:
        images = {image["id"]: image for image in content["images"]}
        counts: dict[str, int] = {}
        for one in content["annotations"]:
            image = images[one["image_id"]]
            file = _file(image)
            subject = (one.get("attributes") or {}).get("subject", counts.get(file, 0))
            counts[file] = counts.get(file, 0) + 1
            points = np.asarray(one["keypoints"], float).reshape(-1, 3)
            box, size = np.asarray(one["bbox"], float), np.array([image["width"], image["height"]], float)
            if (
                points.shape != (17, 3)
                or box.shape != (4,)
                or not (np.isfinite(points).all() and np.isfinite(box).all() and size.min() > 0)
            ):
                raise ValueError("expected 17 keypoints, a bbox of 4 numbers, and a width and height of its image")
            points[:, 2] = points[:, 2].clip(NOWHERE, COUNTS)
            keypoints[file, int(subject)] = box, points, size
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: expected COCO keypoints ({type(error).__name__}: {error}).") from error
    return keypoints
