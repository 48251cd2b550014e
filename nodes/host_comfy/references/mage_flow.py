"""Mage-Flow-Edit: [text | picture | references], a token for each latent cell."""

from __future__ import annotations

from ....core.routing.call_layout import Stage
from .call import Call
from .flux import text_image_references


def stages(call: Call) -> list[Stage]:
    """All blocks are alike."""
    return [text_image_references(call, 1, len(call.network.transformer_blocks))]
