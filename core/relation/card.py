"""What a relation's file says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RelationCard:
    """What the file says of itself: the metadata of section 4 of the file format.

    Attributes:
        base: sdxl, miniworld or flux.
        relation: the predicate, e.g. "shaking hands with".
        example_prompt: a sentence that shows how to ask for it.
        losses: weight of each loss in training.
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

    def metadata(self) -> dict[str, str]:
        """Flat strings, with the ModelSpec keys that LoRA managers show."""
        architecture = {"sdxl": "stable-diffusion-xl-v1-base/lora", "flux": "flux-1-dev/lora"}
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
            "modelspec.architecture": architecture.get(self.base, f"{self.base}/lora"),
            "modelspec.title": f"Relate: {self.relation}",
            "modelspec.trigger_phrase": self.relation,
        }
        return flat | ({"modelspec.thumbnail": self.thumbnail} if self.thumbnail else {})
