"""JoyImage-Edit: [picture | references | text] in every block."""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """All blocks are alike."""
    _, patch, _ = call.network.patch_size
    parts = Parts().add("image", tokens_in(call.image, patch))
    for index, shape in enumerate(call.latents):
        parts.add(index, tokens_in(shape, patch))
    parts.add("text", call.text)
    return [Stage("attention", len(call.network.double_blocks), parts.size, call.layout(parts, patch), recorded=True)]
