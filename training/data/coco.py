"""Detection sets in COCO's format: pictures with boxes and segmentations of things, captions in a file beside.

Instances: ``images`` (id, file_name, width, height), ``annotations`` (image_id, category_id, bbox [x, y, width, height]
in pixels, segmentation as polygons or run lengths, iscrowd), ``categories`` (id, name). Captions: ``annotations``
(image_id, caption). A picture's first caption counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from core.user_files import read_json_object

from ..common.errors import UserErrors, first_few
from ..common.polygons import fill_polygons

_MOST = 3  # faults of one file that are spelled out


@dataclass(frozen=True, eq=False)
class Thing:
    """One annotated thing.

    Attributes:
        name: of its category.
        box: x0, y0, x1, y1, fractions of the picture.
        segmentation: as the file has it; empty or None stands for the whole box.
    """

    name: str
    box: tuple[float, float, float, float]
    segmentation: Any

    def mask(self, width: int, height: int) -> np.ndarray:
        """Draw (height, width) bool, where it is.

        Raises:
            ValueError: run lengths that are not of this picture.
        """
        if isinstance(self.segmentation, dict):
            return _run_lengths(self.segmentation, width, height)
        if self.segmentation:
            pairs = [list(zip(polygon[::2], polygon[1::2])) for polygon in self.segmentation]
            return fill_polygons(pairs, (width, height))
        canvas = Image.new("1", (width, height))
        x0, y0, x1, y1 = self.box
        ImageDraw.Draw(canvas).rectangle((x0 * width, y0 * height, x1 * width - 1, y1 * height - 1), fill=1)
        return np.asarray(canvas)


@dataclass(frozen=True, eq=False)
class AnnotatedPicture:
    """One picture of a set: its file, size in pixels, caption (empty where there is none) and things."""

    path: Path
    size: tuple[int, int]
    caption: str
    things: tuple[Thing, ...]


def area_of(box: Sequence[float]) -> float:
    """Compute the area of x0, y0, x1, y1; 0 where the edges are reversed."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def read_coco(instances: Path, pictures: Path, captions: Path | None) -> list[AnnotatedPicture]:
    """Read a set; pictures are looked for, not opened.

    Args:
        instances: the JSON file.
        pictures: the folder of the files that it names.
        captions: the JSON file of captions, or None.

    Returns:
        Pictures with at least one thing, in the file's order. Crowds are left out.

    Raises:
        UserErrors: what is missing or misshapen; of each file the first few and how many.
    """
    # 1. the files
    faults: list[str] = []
    try:
        content = read_json_object(instances)
        first_captions = _captions(captions, faults) if captions else {}
    except ValueError as error:
        raise UserErrors(str(error)) from error
    absent = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if absent:
        raise UserErrors(f"{instances}: expected COCO's instances, got no list of {', '.join(absent)}.")
    # 2. their entries, faults cut short file by file
    names = {_id(entry, "id"): entry.get("name") for entry in content["categories"] if isinstance(entry, dict)}
    images = _images(content["images"], instances, pictures, faults)
    things: dict[Any, list[Thing]] = {}
    wrong: list[str] = []
    for number, entry in enumerate(content["annotations"]):
        thing = _thing(entry, f"{instances}: annotations[{number}]", names, images, wrong)
        if thing:
            things.setdefault(entry["image_id"], []).append(thing)
    faults += first_few(wrong, _MOST, f"{instances}: ")
    # 3. the pictures that show something
    annotated = [
        AnnotatedPicture(path, size, first_captions.get(key) or caption, tuple(things[key]))
        for key, (path, size, caption) in images.items()
        if key in things
    ]
    if not annotated and not faults:
        faults.append(f"{instances}: no picture in it has an annotation with a box.")
    if faults:
        raise UserErrors(faults)
    return annotated


def _images(entries: Sequence[Any], file: Path, folder: Path, faults: list[str]) -> dict[Any, tuple]:
    images, wrong = {}, []
    for number, entry in enumerate(entries):
        entry = entry if isinstance(entry, dict) else {}
        size = (entry.get("width"), entry.get("height"))
        name, key = entry.get("file_name"), _id(entry, "id")
        if key is None or not isinstance(name, str) or not all(isinstance(side, int) and side > 0 for side in size):
            wrong.append(f"{file}: images[{number}]: expected id, file_name, width and height.")
        elif not (folder / name).is_file():
            wrong.append(f"{folder / name}: missing; {file.name} names it. Set data.pictures to the pictures' folder.")
        else:
            caption = entry.get("caption")
            images[key] = (folder / name, size, caption if isinstance(caption, str) else "")
    faults += first_few(wrong, _MOST, f"{file}: ")
    return images


def _thing(entry: Any, where: str, names: dict, images: dict, faults: list[str]) -> Thing | None:
    """Read one annotation; None for a crowd, a picture that is not there, or a fault."""
    if not isinstance(entry, dict):
        faults.append(f"{where}: expected an object.")
        return None
    image = images.get(_id(entry, "image_id"))
    if entry.get("iscrowd") or image is None:
        return None
    box, name = entry.get("bbox"), names.get(_id(entry, "category_id"))
    if not isinstance(name, str) or not name.strip():
        faults.append(f"{where}: category_id {entry.get('category_id')!r} is none of the categories.")
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
        faults.append(f"{where}: expected bbox [x, y, width, height] in pixels, got {str(box)[:60]}.")
        return None
    width, height = image[1]
    x, y, wide, high = box
    edges = tuple(min(max(edge, 0.0), 1.0) for edge in (x / width, y / height, (x + wide) / width, (y + high) / height))
    if wide <= 0 or high <= 0 or edges[0] >= edges[2] or edges[1] >= edges[3]:
        return None  # detectors leave boxes of no width behind
    segmentation = entry.get("segmentation")
    polygons = isinstance(segmentation, list) and all(
        isinstance(part, list) and len(part) >= 6 and all(_is_number(value) for value in part) for part in segmentation
    )
    if segmentation is not None and not polygons and not isinstance(segmentation, dict):
        faults.append(f"{where}: expected segmentation as polygons of at least 3 points or as run lengths.")
        return None
    return Thing(name.strip(), edges, segmentation)


def _id(entry: dict, key: str) -> int | str | None:
    """Read a number or a word that names something; None for anything else."""
    value = entry.get(key)
    return value if isinstance(value, int | str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _captions(file: Path, faults: list[str]) -> dict[Any, str]:
    entries = read_json_object(file).get("annotations")
    if not isinstance(entries, list):
        faults.append(f"{file}: expected COCO's captions, got no list of annotations.")
        return {}
    captions: dict[Any, str] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("caption"), str) and entry["caption"].strip():
            captions.setdefault(_id(entry, "image_id"), " ".join(entry["caption"].split()))
    return captions


def _run_lengths(segmentation: dict, width: int, height: int) -> np.ndarray:
    """Decode COCO's run lengths, column by column, zeros first: a list, or its text of 6-bit groups.

    Raises:
        ValueError: of another size, or not run lengths.
    """
    counts = segmentation.get("counts")
    runs = _decoded(counts) if isinstance(counts, str) else counts
    if segmentation.get("size") != [height, width] or not isinstance(runs, list):
        raise ValueError(f"expected run lengths of {width} x {height} pixels, got size {segmentation.get('size')}.")
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != width * height:
        raise ValueError(f"its run lengths do not add up to {width * height} pixels.")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def _decoded(text: str) -> list[int]:
    """Decode COCO's compressed counts: 5 bits per letter from "0" on, bit 6 continues, the sign is in the last.

    From the third count on they are differences to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
