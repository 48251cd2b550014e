"""One experiment of the miniworld: learn a relation from a few triplets, draw new creatures in it, count.

Used by the demo (one experiment) and by the ablation (many). Training triplets show seen identities; pictures show
identities that no training has seen.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.relation.lora import load_relation

from ... import finetune
from ...common.cli import TrainingAborted
from ...host_diffusers import merge_relation, unet_layout
from ...host_diffusers.miniworld.architectures import FOLDER
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.detector_network import FILE as DETECTOR
from ..world.triplets import write_triplets

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "relation_miniworld.toml"


@dataclass(frozen=True)
class AblationVariant:
    """Settings of learning a relation.

    Attributes:
        relation: held out of the base's training.
        triplets: their number; the paper uses 5.
        copy_paste: cut the concepts from the targets (the paper's "without relation-aware data").
        overrides: ``table.key=value`` over relation_miniworld.toml.
    """

    relation: str = "hugging"
    triplets: int = 5
    copy_paste: bool = False
    overrides: tuple[str, ...] = ()


def train_relation(recipe: AblationVariant, folder: Path, seed: int, again: str = "", config: Path = CONFIG) -> Path:
    """Draw the triplets and fine-tune, or take the file that an earlier call made.

    Args:
        recipe: the relation and its training.
        folder: receives `triplets/` and `run/`.
        seed: of the triplets and of the training.
        again: the command that calls this and goes on after a stop; empty: the training's own.
        config: that the overrides are over.

    Returns:
        The relation LoRA.

    Raises:
        TrainingAborted: the command failed; it has said why.
        KeyboardInterrupt: it was stopped.
    """
    lora = relation_file(folder)
    if not lora.exists():
        write_triplets(folder / "triplets", recipe.relation, recipe.triplets, seed, copy_paste=recipe.copy_paste)
        settings = (
            f"relation={recipe.relation}",
            f"data.folder={folder / 'triplets'}",
            f"output.folder={folder / 'run'}",
            f"output.cache={folder / 'cache'}",
            "output.name=relation",
            f"train.seed={seed}",
            *recipe.overrides,
        )
        set_options = [part for setting in settings for part in ("--set", setting)]
        resume = ["--resume"] if (folder / "run" / "checkpoint.safetensors").exists() else []
        code = finetune.main([str(config), *set_options, *resume], again)
        if code > 128:
            raise KeyboardInterrupt
        if code:
            raise TrainingAborted(f"{folder}: python -m training.finetune ended with {code}; what it said stands above")
    return lora


def base_digest(folder: Path = FOLDER) -> str:
    """Hash of the weights in use here, judges too: results on other weights are not comparable.

    Detector, relations and subject adapter are left out: nothing here is drawn or counted with them.
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")]):
        if path.parent.name not in ("flux", "flux_index", "relations", "relate") and path.name != DETECTOR:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def relation_file(folder: Path) -> Path:
    """Return the relation's file of `train_relation`; it exists once the relation is learnt."""
    return folder / "run" / "relation.safetensors"


@contextmanager
def with_relation(world: Miniworld, lora: Path | None, strength: float = 1.0) -> Iterator[None]:
    """Merge a relation into the miniworld's UNet while the block runs; None leaves it as it is."""
    if lora is None:
        yield
        return
    restore = merge_relation(world.unet, load_relation(lora, unet_layout(world.unet)), strength)
    try:
        yield
    finally:
        restore()
