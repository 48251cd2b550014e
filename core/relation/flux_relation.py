"""Read the relation LoRA of a Flux-class model in any published spelling, and refuse another base's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..flux_lora_keys import FluxLoRA, load_flux_lora
from .card import predicate_of
from .flux_bases import FileBase, FluxShape, base_of_file, check_base


@dataclass(frozen=True, eq=False)
class FluxRelation:
    """The LoRA of one relation.

    Attributes:
        lora: its tensors.
        base: the model it was made for; None if the file does not show it.
    """

    lora: FluxLoRA
    base: FileBase | None

    @property
    def relation(self) -> str:
        """The predicate the file names; empty if it names none."""
        return predicate_of(self.lora.metadata)

    def report(self) -> str:
        """E.g. "20 pairs for FLUX.2 Klein 4B, sites T, references by 'index'"."""
        metadata = self.lora.metadata
        text = f"{self.lora.pairs} pairs"
        text += f" for {self.base.title}" if self.base else ""
        text += f", {len(self.lora.magnitudes)} of them DoRA" if self.lora.magnitudes else ""
        text += f", sites {metadata['sites']}" if metadata.get("sites") else ""
        method = metadata.get("reference_method")
        text += f", trained with references by '{method}'" if method else ""
        return text + (f", alpha from {self.lora.alpha_source}" if self.lora.alpha_source else "")


def load_flux_relation(path: str | Path, model: FluxShape) -> FluxRelation:
    """Read a relation LoRA for one Flux-class model.

    Raises:
        ValueError: unreadable, a file of another kind, no LoRA, half a pair, or made for another base.
    """
    path = Path(path)
    lora = load_flux_lora(path)
    kind = lora.metadata.get("kind", "relation")
    if kind != "relation":
        raise ValueError(f"{path.name}: expected a relation LoRA, got a file of kind '{kind}'.")
    base = base_of_file(lora.state, lora.metadata)
    check_base(base, model, path.name)
    return FluxRelation(lora, base)
