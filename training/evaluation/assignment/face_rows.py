"""Measure faces of pictures: embed those of the references and those of the picture, and measure the published ways.

A reference is a person if a face is found in its photograph: the largest counts. Pictures without such a reference are
not measured. The formulas are those of `faces`; their detector and encoder are those that `--faces` names, which for
ID-Sim and ID-Conf are not UMO's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ...common.image_files import open_picture
from ..prompts import Entry
from .faces import id_conf_umo, id_sim_umo, multi_id


class FaceEncoder(Protocol):
    """Finds faces and embeds them."""

    name: str

    def faces(self, image: Image.Image) -> np.ndarray:
        """Return (F, E) embeddings of length 1, the largest face first; F may be 0."""
        ...


def measure_faces(
    entries: Sequence[Entry],
    encoder: FaceEncoder,
    progress: Callable[[Sequence], Sequence] = lambda items: items,
) -> list[dict[str, float | None]]:
    """Measure every picture that has a person among its references.

    Args:
        entries: N, with their pictures.
        encoder: see `FaceEncoder`.
        progress: wraps the iteration, as `tqdm` does.

    Returns:
        N rows by the keys of `columns.FACE_COLUMNS`; empty where nothing can be measured.

    Raises:
        UserErrors: a picture that cannot be decoded.
    """
    people: dict[Path, np.ndarray] = {}
    rows: list[dict[str, float | None]] = []
    for entry in progress(entries):
        for path in entry.references:
            if path not in people:
                people[path] = encoder.faces(open_picture(path))[:1]
        looks = [people[path] for path in entry.references if len(people[path])]
        rows.append(_row(np.concatenate(looks), encoder.faces(open_picture(entry.picture))) if looks else {})
    return rows


def _row(references: np.ndarray, faces: np.ndarray) -> dict[str, float | None]:
    """Measure one picture: (R, E) faces of its references, (F, E) faces in it."""
    cosines = references @ faces.T if len(faces) else np.zeros((len(references), 0))
    confidences = [value for value in map(id_conf_umo, cosines) if value is not None]
    return {
        "face_multi_id": multi_id(cosines),
        "face_id_sim": id_sim_umo(cosines),
        "face_id_conf": float(np.mean(confidences)) if confidences else None,
        "face_count_exact": float(len(faces) == len(references)),
    }
