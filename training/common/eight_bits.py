"""Weights in 8 bits, for small models that only this package reads: a byte for each weight and a scale for each row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"
_LARGEST = 127


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights for a file.

    Args:
        weights: by name. Those of two axes or more become int8 and ``<name>.scale``, (rows,) float32: a weight is its
            byte times its row's scale, off by at most half a scale. The others become float16.

    Returns:
        Tensors by name, on the CPU.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        if value.ndim < 2:
            tensors[name] = value.half()
            continue
        scale = (value.flatten(1).abs().amax(1).float() / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        rows = scale.view(-1, *[1] * (value.ndim - 1))
        tensors[name] = (value / rows).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        tensors[name + SCALE] = scale
    return tensors


def restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 weights that a file of `rounded` tensors holds; tensors of other files as float32."""
    weights = {}
    for name, value in tensors.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in tensors:
            continue
        weights[name] = value.float()
        if name + SCALE in tensors:
            weights[name] *= tensors[name + SCALE].view(-1, *[1] * (value.ndim - 1))
    return weights
