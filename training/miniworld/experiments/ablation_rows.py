"""The rows of the ablation: which relation is learnt for each, and how it is drawn; and the files of their counts.

Source of the rows: DreamRelation arXiv:2410.23280, tables 4 (parts left out), 5 (local encoders), 6 (KML weights) and
7 (local tokens), 8 (how these join CLIP's), figure 4 (the relation without references).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .generate import Drawing
from .injection import ADDED, CONCATENATED, MIXED
from .measure import Predictions
from .train_relation import AblationVariant

PICTURES, SEEDS = 72, (0, 1, 2)
BASE, FULL, INVERSION, JOINTS = "base alone", "full", "text embedding", "joints.json"
VARIANTS = {
    FULL: AblationVariant(),
    "without relation-aware data": AblationVariant(copy_paste=True),
    "without local tokens": AblationVariant(overrides=('models.local_clip_vision=""',)),
    "without KML": AblationVariant(overrides=("loss.keypoint_weight=0.0",)),
    "KML weight 1e-2": AblationVariant(overrides=("loss.keypoint_weight=1e-2",)),
    "KML weight 1e-4": AblationVariant(overrides=("loss.keypoint_weight=1e-4",)),
    "local grid 2": AblationVariant(overrides=("identity.local_grid=2",)),
    "local grid 8": AblationVariant(overrides=("identity.local_grid=8",)),
    "undistilled": AblationVariant(overrides=('models.local_clip_vision="models/miniworld/clip_vision"',)),
}


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        table: its heading.
        name: of the line.
        recipe: key of VARIANTS, or INVERSION; empty draws with the base alone.
        how: settings of the drawing; None takes the renderer's own, which bound what the judges can see.
        injection: the way in which local tokens join CLIP's, for which the branch was trained on; empty: as shipped.
        other: name of the row that it is tested against; empty: FULL, or BASE where nothing was learnt.
    """

    table: str
    name: str
    recipe: str = FULL
    how: Drawing | None = field(default=Drawing())
    injection: str = ""
    other: str = ""


_PARTS, _WEIGHTS, _GRIDS = "Parts left out (paper's table 4)", "Weight of the keypoint loss", "Local tokens"
_STRENGTHS, _BOXES = "Strength of the image branch when drawing", "Boxes when drawing"
_ENCODERS, _WITHOUT = "Encoder of the local tokens", "The relation without references (paper's figure 4)"
_INJECTION, _BEHIND = "How local tokens join CLIP's (paper's table 8)", "behind them, the branch trained on"
_TOKENS = "Whose tokens the base alone is given"
ROWS = (
    Row(_PARTS, "the renderer's own", "", None),
    Row(_PARTS, BASE, ""),
    Row(_PARTS, FULL),
    Row(_PARTS, "without relation-aware data", "without relation-aware data"),
    Row(_PARTS, "without local tokens", "without local tokens", Drawing(grid=0)),
    Row(_PARTS, "without KML", "without KML"),
    Row(_STRENGTHS, "strength 0", how=Drawing(strength=0.0)),
    Row(_STRENGTHS, "strength 0.3", how=Drawing(strength=0.3)),
    Row(_STRENGTHS, "strength 0.9", how=Drawing(strength=0.9)),
    Row(_STRENGTHS, "strength 1.2", how=Drawing(strength=1.2)),
    Row(_BOXES, "boxes cut apart", how=Drawing(boxes="apart")),
    Row(_TOKENS, "all 65 CLIP tokens a stranger's", "", Drawing(stranger="clip")),
    Row(_TOKENS, "all 16 local tokens a stranger's", "", Drawing(stranger="local")),
    Row(_TOKENS, "local tokens left out", "", Drawing(grid=0)),
    Row(_ENCODERS, "CLIP, not distilled", "undistilled", Drawing(distilled=False)),
    Row(_WITHOUT, "base alone, no references", "", Drawing(strength=0.0)),
    Row(_WITHOUT, "a text embedding, no references", INVERSION, Drawing(strength=0.0)),
    Row(_WITHOUT, "a text embedding, with references", INVERSION),
    Row(_WEIGHTS, "KML weight 1e-2", "KML weight 1e-2"),
    Row(_WEIGHTS, "KML weight 1e-4", "KML weight 1e-4"),
    Row(_GRIDS, "local grid 2", "local grid 2", Drawing(grid=2)),
    Row(_GRIDS, "local grid 8", "local grid 8", Drawing(grid=8)),
    Row(_INJECTION, _BEHIND, injection=CONCATENATED),
    Row(_INJECTION, "added to the patches", injection=ADDED, other=_BEHIND),
    Row(_INJECTION, "mixed into the patches by a layer", injection=MIXED, other=_BEHIND),
)


def cell_file(out: Path, row: Row, seed: int) -> Path:
    """Return where the counts of a row and seed are kept."""
    return out / "cells" / f"{row.name.replace(' ', '_')}-{seed}.npz"


def read_cell(path: Path) -> Predictions:
    """Read the counts of one row and seed."""
    with np.load(path, allow_pickle=False) as arrays:
        return Predictions(**arrays)
