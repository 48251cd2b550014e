"""Krea 2 with an edit LoRA: [text | picture | references], after a fusion of its text layers that is left alone."""

from __future__ import annotations

from ....core.routing.call_layout import Stage
from .call import Call, frames_of
from .flux import text_image_references


def stages(call: Call) -> list[Stage]:
    """All blocks are alike; frames are folded into the batch.

    Raises:
        ValueError: no reference method: Krea 2 ignores references then.
    """
    if call.conds.get("ref_latents_method", call.network.default_ref_method) is None:
        raise ValueError(
            "Krea 2 reads reference latents only with a method. Put Edit Model Reference Method, index, "
            "behind the last Reference Latent."
        )
    if any(frames_of(shape) > 1 for shape in (call.image, *call.latents)):
        raise ValueError("Krea 2 was given more than one frame in a latent; its references are pictures.")
    return [text_image_references(call, call.network.patch, len(call.network.blocks))]
