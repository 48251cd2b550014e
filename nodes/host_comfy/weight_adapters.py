"""Weight adapters that LoRA files hold and ComfyUI lacks, as subclasses of its own."""

from __future__ import annotations

import torch
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor


class MagnitudeLoRA(LoRAAdapter):
    """A pair with peft's magnitude vector: W' = m (W + delta) / ||W + delta||, norms of rows (arXiv:2402.09353).

    ComfyUI's own rule for ``dora_scale`` divides by the norms of W alone, and does not read peft's key.

    m (out,) is the last of ``weights``, behind those of ComfyUI's pair: where memory is short ComfyUI makes the adapter
    once more of its class, its keys and its weights, which it has moved.
    """

    @classmethod
    def of(cls, pair: LoRAAdapter, magnitude: Tensor) -> MagnitudeLoRA:
        """Add a magnitude vector (out,) to a pair."""
        return cls(pair.loaded_keys, (*pair.weights, magnitude))

    def calculate_weight(
        self,
        weight,
        key,
        strength,
        strength_model,
        offset,
        function,
        intermediate_dtype=torch.float32,
        original_weight=None,
    ):
        """Compute the changed weight (out, in) as ComfyUI's adapters do; ``strength`` leads from W to W'."""
        merged = super().calculate_weight(
            weight.to(intermediate_dtype, copy=True),
            key,
            1.0,
            strength_model,
            offset,
            function,
            intermediate_dtype,
            original_weight,
        )
        norms = merged.norm(dim=1, keepdim=True).clamp_min(torch.finfo(merged.dtype).tiny)
        changed = merged * (self.weights[-1].to(merged)[:, None] / norms)
        return weight.copy_(torch.lerp(weight.to(merged), changed, strength))


def with_magnitudes(patches: dict, magnitudes: dict) -> None:
    """Replace the pairs among a MODEL's patches that have a magnitude vector.

    Args:
        patches: by the model's key, as ComfyUI's ``load_lora`` gives them; changed.
        magnitudes: by the same keys.
    """
    for target, magnitude in magnitudes.items():
        if isinstance(patches.get(target), LoRAAdapter):
            patches[target] = MagnitudeLoRA.of(patches[target], magnitude)
