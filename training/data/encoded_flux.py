"""Triplets as a step on a Flux-class model takes them: latents of target and references, prompts, what is where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .encoded_triplets import stack_padded

PLAIN, NAMED = 0, 1  # of the two prompts of a crop: as written, with its references named
_SHARED = ("empty_context", "empty_pooled")


@dataclass(frozen=True, eq=False)
class EncodedFlux:
    """N crops of triplets, encoded, on the CPU; rows are padded to the largest S and P.

    Attributes:
        latents: (N, C, h, w) of the target, normalised; ``concept_latents`` (N, S, C, h, w) at the target's scale.
        references: (N, S, C, h', w') in the subjects' order.
        context: (N, 2, L, E) of the prompt as written and with its references named; ``pooled`` (N, 2, P), P may be 0.
        span: (N, 2, L) weight of each token: the mean over the predicate's.
        places: (N, S) the token of each reference's placeholder in the named prompt; 0 where it has none.
        shares: (N, S, g, g) share of each 16-pixel cell of the target that a subject covers.
        region: (N, H, W) 1 where a subject is.
        present: (N, S) 1 for a subject, 0 for padding.
        keypoints_target, keypoints_concepts: (N, S, P, 2); ``visible`` (N, S, P) 0 or 1.
        source: (N,) the folder that a crop is from; ``columns`` (N,) 1 for two crops side by side.
        empty_context, empty_pooled: (1, L, E) and (1, P) of the empty prompt, shared by all rows.
    """

    latents: Tensor
    concept_latents: Tensor
    references: Tensor
    context: Tensor
    pooled: Tensor
    span: Tensor
    places: Tensor
    shares: Tensor
    region: Tensor
    present: Tensor
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    visible: Tensor
    source: Tensor
    columns: Tensor
    empty_context: Tensor
    empty_pooled: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Tensor) -> EncodedFlux:
        """Take some of the crops, on the same device."""
        return EncodedFlux(**{name: part if name in _SHARED else part[rows] for name, part in vars(self).items()})

    def to(self, device: torch.device) -> EncodedFlux:
        return EncodedFlux(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def stack_flux_rows(rows: list[dict[str, Tensor]], empty: dict[str, Tensor]) -> EncodedFlux:
    """Stack rows of different numbers of subjects and joints, padded with zeros.

    Args:
        rows: fields of `EncodedFlux`, of one crop each.
        empty: ``context`` (1, L, E) and ``pooled`` (1, P) of the empty prompt.
    """
    stacked = stack_padded(rows, [name for name in EncodedFlux.__dataclass_fields__ if name not in _SHARED])
    return EncodedFlux(**stacked, empty_context=empty["context"], empty_pooled=empty["pooled"])
