"""JoyImage-Edit: [picture | references | text] in every block."""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """All blocks are alike."""
    _, patch, _ = call.network.patch_size
    parts = call.add_references(Parts().add("image", tokens_in(call.image, patch)), patch).add("text", call.text)
    return [Stage("attention", len(call.network.double_blocks), parts.size, call.layout(parts, patch), recorded=True)]
