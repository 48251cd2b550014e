"""The metadata of a relation's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .flux_bases import FLUX_BASES
from .unet_bases import UNET_BASES

_ARCHITECTURES = {  # ModelSpec's names, as sd-scripts and musubi-tuner write them
    "flux": "flux-1-dev",
    **{name: base.architecture for name, base in (*UNET_BASES.items(), *FLUX_BASES.items())},
}


@dataclass(frozen=True)
class RelationCard:
    """Metadata of a relation's file.

    Attributes:
        base: a row of `flux_bases.FLUX_BASES`, or what `unet_bases.base_name` gives.
        relation: the predicate, e.g. "shaking hands with".
        example_prompt: a sentence that shows how to ask for it.
        losses: weight of each loss in training.
        sites: where a Flux-class relation sits, e.g. "T" (text-stream projections); empty for a UNet's.
        reference_method: how reference images stood in the sequence: uxo, index, offset; empty without references.
        data_licences: licences of the training data, each once.
        thumbnail: a ``data:image/...;base64,`` URI, or empty.
    """

    base: str
    relation: str
    example_prompt: str = ""
    rank: int = 0
    alpha: float = 0.0
    steps: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    dataset_sha256: str = ""
    created_with: str = ""
    thumbnail: str = ""
    sites: str = ""
    reference_method: str = ""
    data_licences: tuple[str, ...] = ()

    def metadata(self) -> dict[str, str]:
        """Flat strings, with the ModelSpec keys that LoRA managers show."""
        flat = {
            "kind": "relation",
            "base": self.base,
            "relation": self.relation,
            "example_prompt": self.example_prompt,
            "rank": str(self.rank),
            "alpha": f"{self.alpha:g}",
            "steps": str(self.steps),
            "losses": json.dumps(self.losses, sort_keys=True),
            "dataset_sha256": self.dataset_sha256,
            "created_with": self.created_with,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{_ARCHITECTURES.get(self.base, self.base)}/lora",
            "modelspec.title": f"Relate: {self.relation}",
            "modelspec.trigger_phrase": self.relation,
        }
        further = {
            "sites": self.sites,
            "reference_method": self.reference_method,
            "data_licences": ", ".join(dict.fromkeys(self.data_licences)),
            "modelspec.thumbnail": self.thumbnail,
        }
        return flat | {key: value for key, value in further.items() if value}


def predicate_of(metadata: Mapping[str, str]) -> str:
    """Return the predicate that a file's metadata names; empty if it names none."""
    return metadata.get("relation") or metadata.get("modelspec.trigger_phrase", "")
