"""Faces by name: insightface's packs of a detector and a face encoder (antelopev2, buffalo_l); an optional extra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .opening import opened

_HOME = "~/.insightface"  # insightface's own default
_SIDE = 640  # of the square its detector reads
_TASKS = ("detection", "recognition")
_LACKS = (
    "no model for {} was found in it; the .onnx files must lie in the pack's own folder, not in another one below it, "
    "as the archive of antelopev2 unpacks"
)


def open_faces(name: str, device: str) -> InsightFaces:
    """Open a pack.

    Args:
        name: of a pack, which insightface downloads where it is not there, or a folder ``.../models/NAME``.
        device: torch device.

    Raises:
        ValueError: the packages are not installed, there is no such pack, or it lacks one of the two models.
    """

    def load() -> InsightFaces:
        from insightface.app import FaceAnalysis

        folder = Path(name)
        if folder.is_dir() and folder.parent.name != "models":
            raise ValueError("insightface reads a pack from a folder named models, e.g. faces/models/antelopev2")
        root = str(folder.parent.parent) if folder.is_dir() else _HOME
        on_gpu = device.startswith("cuda")
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if on_gpu else ["CPUExecutionProvider"]
        try:
            pack = FaceAnalysis(name=folder.name, root=root, providers=providers, allowed_modules=list(_TASKS))
        except AssertionError as error:  # of insightface, without a word, if it found no detector
            raise ValueError(_LACKS.format(_TASKS[0])) from error
        if lacking := [task for task in _TASKS if task not in pack.models]:
            raise ValueError(_LACKS.format(lacking[0]))
        pack.prepare(ctx_id=0 if on_gpu else -1, det_size=(_SIDE, _SIDE))
        return InsightFaces(folder.name, pack)

    try:
        return opened(f"--faces {name}", load)
    except ValueError as error:
        if isinstance(error.__cause__, ImportError):
            raise ValueError(
                f"--faces {name}: {error.__cause__}. Install it with: pip install -e '.[faces]'"
            ) from error.__cause__
        raise


class InsightFaces:
    """A pack, opened; see `FaceEncoder`."""

    def __init__(self, name: str, pack) -> None:
        self.name, self.pack = name, pack

    def faces(self, image: Image.Image) -> np.ndarray:
        """See `FaceEncoder.faces`."""
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])  # it reads BGR
        faces = sorted(self.pack.get(pixels), key=lambda face: -_area(face.bbox))
        return np.stack([face.normed_embedding for face in faces]) if faces else np.zeros((0, 0))


def _area(box) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))
