"""Triplets as the training step takes them: latents, tokens, keypoints, regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_PER_JOINT = ("keypoints_target", "keypoints_concepts", "visible")
_PER_SUBJECT = (*_PER_JOINT, "boxes", "present", "identity", "concept_latents", "references", "shares", "places")


@dataclass(frozen=True, eq=False)
class EncodedTriplets:
    """N crops of triplets, encoded; float32 on the CPU. Rows are padded to the largest S and P.

    Attributes:
        latents: (N, C, h, w) of the target, scaled; ``concept_latents`` (N, S, C, h, w).
        context: (N, 77, D); ``pooled`` (N, P); ``time_ids`` (N, 6).
        span: (N, 77) weight of each token: the mean over the predicate's.
        boxes: (N, S, 4), zero where padded; ``present`` (N, S) 1 for a subject, 0 for padding.
        identity: (N, S, T, D) identity tokens, or (N, S, 0, D) without an identity model.
        region: (N, H, W) 1 where a subject is.
        keypoints_target, keypoints_concepts: (N, S, P, 2); ``visible`` (N, S, P) 0 or 1.
    """

    latents: Tensor
    concept_latents: Tensor
    context: Tensor
    pooled: Tensor
    time_ids: Tensor
    span: Tensor
    boxes: Tensor
    present: Tensor
    identity: Tensor
    region: Tensor
    keypoints_target: Tensor
    keypoints_concepts: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def take(self, rows: Tensor) -> EncodedTriplets:
        """Return some of the crops, on the same device."""
        return EncodedTriplets(**{name: tensor[rows] for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> EncodedTriplets:
        return EncodedTriplets(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def pad_to(tensor: Tensor, shape: Sequence[int], fill: float = 0) -> Tensor:
    """Put a tensor into the first corner of a larger one of the same number of axes."""
    whole = tensor.new_full(tuple(shape), fill)
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


def stack_padded(rows: list[dict[str, Tensor]], names: Iterable[str]) -> dict[str, Tensor]:
    """Stack rows of different numbers of subjects and joints, padded with zeros.

    Args:
        rows: tensors of one crop each, by name.
        names: which of them.
    """
    subjects = max(len(row["present"]) for row in rows)
    joints = max(row["visible"].shape[1] for row in rows)

    def padded(name: str, tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        shape[0:1] = [subjects] if name in _PER_SUBJECT else shape[0:1]
        shape[1:2] = [joints] if name in _PER_JOINT else shape[1:2]
        return pad_to(tensor, shape)

    return {name: torch.stack([padded(name, row[name]) for row in rows]) for name in names}


def stack_rows(rows: list[dict[str, Tensor]]) -> EncodedTriplets:
    """Stack rows, fields of `EncodedTriplets` of one crop each."""
    return EncodedTriplets(**stack_padded(rows, EncodedTriplets.__dataclass_fields__))
