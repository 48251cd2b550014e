"""Published measures of faces, from cosines alone; the detector and encoder that give the cosines are an extra.

"ID-Sim (UMO)" and "ID-Conf (UMO)": XVerseBench and UMO (Apache-2.0): faces by facer's RetinaFace, boxes times 1.3,
ArcFace IR-SE50. Not the learned metric of the same name (arXiv:2604.05039). "Multi-ID (MultiHuman)": glintr100 of
antelopev2, Hungarian assignment, a missing person counting 0.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np

from .hungarian import maximum_assignment

PACKAGES = ("insightface", "onnxruntime")


def id_sim_umo(cosines: np.ndarray) -> float:
    """Return the mean over references of 100 times the best cosine over the faces detected; 0 without faces.

    Args:
        cosines: (R, F); two references may claim one face.
    """
    return float(100 * cosines.max(1).mean()) if cosines.shape[1] else 0.0


def id_conf_umo(cosines: Sequence[float]) -> float | None:
    """Return 100 min(1, (s1 - s2) / s1) of one reference's two best cosines; None with fewer than two faces.

    Args:
        cosines: (F,) of one reference.
    """
    if len(cosines) < 2:
        return None
    second, first = sorted(cosines)[-2:]
    return 0.0 if first <= 0 else 100 * min(1.0, (first - second) / first)


def multi_id(cosines: np.ndarray) -> float:
    """Return the Hungarian maximum of the cosines padded with zeros to a square, over the number of people.

    Args:
        cosines: (R, F).
    """
    people, faces = cosines.shape
    if not faces:
        return 0.0
    side = max(people, faces)
    square = np.zeros((side, side))
    square[:people, :faces] = cosines
    columns = maximum_assignment(square)
    return float(sum(square[row, columns[row]] for row in range(people)) / people)


def not_measured() -> str:
    """Return the note of a run without faces: the option and packages it needs."""
    lacking = any(importlib.util.find_spec(name) is None for name in PACKAGES)
    packages = f" and {' and '.join(PACKAGES)} (pip install -e '.[faces]')" if lacking else ""
    return f"not measured: needs --faces{packages}"
