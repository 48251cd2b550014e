"""Numbers of the gates, and a TOML file that changes them.

    [identity]
    reject = 0.45
    warn = 0.60

Numbers marked P are proposals: real models have not been calibrated yet (docs/data_engine.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tomllib
from pydantic import Field

from core.user_files import read_text

from ..common.schema import Checked
from ..common.toml_config import read_settings

Number = Annotated[float, Field(allow_inf_nan=False, description="a finite number")]


class Limits(Checked):
    """Where a gate rejects, and where it warns."""

    reject: Number
    warn: Number


class DetectionLimits(Checked):
    """Scores and sizes from which boxes and joints count."""

    score: Number = 0.30  # of a name's box; OWLv2's scores are lower, P .15
    rival: Number = 0.7  # share of the best score from which a second box of a name is a rival
    second_score: Number = 0.5  # share of the first's score from which a second subject in a photograph is believed, P
    second: Number = 0.25  # share of the subject's area from which a second one in its photograph counts
    joint: Number = 0.3  # score from which a joint counts, P
    hidden: Number = 0.015  # of the box's longer side: how far outside its own mask a joint may lie, P


class Thresholds(Checked):
    """All gates. A gate rejects below `reject` and warns below `warn`; `copy_paste`, `unchanged`: at or above."""

    detection: DetectionLimits = DetectionLimits()
    box: Limits = Limits(reject=0.5, warn=0.7)  # IoU of the mask's bounds with the detector's box, P
    mask: Limits = Limits(reject=0.5, warn=0.75)  # the segmenter's own estimate of its IoU, P
    area: Limits = Limits(reject=0.01, warn=0.03)  # of the picture, P
    identity: Limits = Limits(reject=0.45, warn=0.60)  # cosine, P
    identity_margin: Limits = Limits(reject=0.0, warn=0.05)  # own photograph nearer than any other, P
    pose_differs: Limits = Limits(reject=0.10, warn=0.22)
    copy_paste: Limits = Limits(reject=0.85, warn=0.75)
    unchanged: Limits = Limits(reject=0.90, warn=0.80)  # P
    relation: Limits = Limits(reject=0.5, warn=0.7)  # probability, P
    relation_margin: Limits = Limits(reject=-1.0, warn=0.2)  # above the best decoy, P
    joints: Limits = Limits(reject=4, warn=8)  # counted in both pictures, P
    picture_px: Limits = Limits(reject=16, warn=768)  # shorter side, P
    subject_px: Limits = Limits(reject=8, warn=160)  # longer side, P


def read_thresholds(path: Path | None, default: Thresholds) -> Thresholds:
    """Update the default with the numbers of a TOML file.

    Raises:
        ValueError, UserErrors: not readable, unknown keys, no numbers.
    """
    if path is None:
        return default
    text = read_text(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        tables = {}  # read_settings says what is wrong with it
    unchanged = [
        f"{table}.{key}={value}"
        for table, keys in default.model_dump().items()
        for key, value in keys.items()
        if table not in tables or isinstance(tables[table], dict) and key not in tables[table]
    ]
    return read_settings(Thresholds, path, text, unchanged, lambda settings: [])
