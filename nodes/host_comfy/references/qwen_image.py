"""Qwen-Image-Edit (2509, 2511, Layered) and FireRed: [text | picture | references], vision tokens in the text."""

from __future__ import annotations

from ....core.routing.call_layout import Stage
from .call import Call
from .flux import text_image_references


def stages(call: Call) -> list[Stage]:
    """All blocks are alike; the text's length is that of the context, padding included."""
    return [text_image_references(call, call.network.patch_size, len(call.network.transformer_blocks))]
