"""Train subject adapters of the miniworld: draw their pictures, and run `training.subject` for each variant.

The variants are the rows of Subject-Diffusion's ablation (arXiv:2307.11410, table 5), each trained without one part,
one whose gates are open from the start, and the one that ships: its adapters are in the up blocks alone, half the
size, and train twice as long.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from core.subject.files import load_subject_adapter

from ... import subject
from ...common.atomic_io import write_text
from ...common.cli import TrainingAborted
from ...common.errors import UserErrors
from ..world.relations import SEEN
from ..world.single_and_group_poses import SINGLES
from ..world.triplets import write_triplets

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "subject_miniworld.toml"
SINGLE_PART = 0.3  # of the pictures show one creature
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "without location control": ("adapter.location=false",),
    "without box coordinates": ("adapter.coordinates=false",),
    "without the adapter": ("adapter.adapter=false",),
    "without attention control": ("loss.attention_weight=0.0",),
    "without the CLS feature": ("adapter.fused_words=false",),
    "gates open from the start": ("adapter.gate=0.5",),
    "up blocks, twice as long": ("adapter.blocks='up'", "train.steps=2000"),
    "shipped": ("adapter.blocks='up'", "train.steps=2000", "adapter.gate=0.5"),
}


def folder_name(variant: str) -> str:
    """Return a variant's name as a folder."""
    return variant.replace(" ", "_").lower()


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """Draw pictures of one and of two creatures in every relation that the base knows; done once.

    Args:
        folder: receives `triplets.jsonl` and a folder for each relation.
        count: how many, about.
        seed: of every draw.
    """
    if (folder / "triplets.jsonl").exists():
        return
    singles = max(round(count * SINGLE_PART / len(SINGLES)), 1)
    pairs = max(round(count * (1 - SINGLE_PART) / len(SEEN)), 1)
    lines: list[str] = []
    counts = {**dict.fromkeys(SEEN, pairs), **dict.fromkeys(SINGLES, singles)}
    for number, (relation, each) in enumerate(counts.items()):
        own = folder / relation.replace(" ", "_")
        write_triplets(own, relation, each, seed + number)
        lines += merged_lines(own)
    write_text(folder / "triplets.jsonl", "\n".join(lines) + "\n")


def merged_lines(folder: Path) -> list[str]:
    """Return the lines of a folder's triplets with paths relative to its parent folder."""
    lines = []
    for text in (folder / "triplets.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        for key in ("concepts", "masks"):
            line[key] = [f"{folder.name}/{name}" for name in line[key]]
        lines.append(json.dumps({**line, "target": f"{folder.name}/{line['target']}"}))
    return lines


def adapter_file(out: Path, variant: str) -> Path:
    """Return the file that a variant's run writes."""
    return out / folder_name(variant) / "miniworld_subject.safetensors"


def opened_gates(file: Path) -> dict[str, float]:
    """Read how far a subject adapter's gates have opened; nothing of a file that is not there."""
    if not file.exists():
        return {}
    state, _ = load_subject_adapter(file)
    return {
        part: round(max(abs(math.tanh(float(gate))) for key, gate in state.items() if key.endswith(f".{part}")), 3)
        for part in ("alpha_attn", "alpha_dense")
    }


def overrides_of(models: Path, out: Path, variant: str, overrides: Sequence[str] = ()) -> list[str]:
    """List the config's settings for a variant on a folder of models."""
    settings = {
        "data.folder": out / "triplets",
        "models.base": models,
        "models.clip_vision": models / "clip_vision",
        "output.folder": out / folder_name(variant),
        "output.cache": out / "cache",
    }
    return [*(f"{key}={json.dumps(path.as_posix())}" for key, path in settings.items()), *VARIANTS[variant], *overrides]


def train_variant(models: Path, out: Path, variant: str, pictures: int, overrides: Sequence[str], again: str) -> Path:
    """Train a variant, or go on with it; a finished one is left alone.

    Args:
        models: a folder laid out as `models/miniworld`.
        out: receives the pictures, the cache and a run for each variant.
        variant: key of VARIANTS.
        pictures: to draw, if there are none yet.
        overrides: `table.key=value` beyond the variant's.
        again: the command that goes on.

    Returns:
        The adapter's file.

    Raises:
        UserErrors: the models, or a setting, are not right.
        TrainingAborted: the run was stopped; its own message has been printed.
    """
    result = adapter_file(out, variant)
    if result.exists():
        return result
    write_pictures(out / "triplets", pictures, seed=0)
    resume = ["--resume"] if (result.parent / "checkpoint.safetensors").exists() else []
    sets = [part for override in overrides_of(models, out, variant, overrides) for part in ("--set", override)]
    code = subject.main([str(CONFIG), *resume, *sets], again)
    if code == 2:
        raise UserErrors(f"{variant}: not trained, for the reason above.")
    if code in (130, 143):
        raise KeyboardInterrupt
    if code:
        raise TrainingAborted(f"{variant}: not finished, for the reason above. Go on with: {again}")
    return result
