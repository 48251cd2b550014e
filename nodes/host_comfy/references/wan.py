"""Bernini on Wan 2.2: [video | streams] in each block's self-attention; the text has an attention of its own.

Streams are what Bernini Conditioning puts under ``context_latents``: a source video, a reference video, then reference
pictures; each that is present has a region of its own.
"""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """Self-attention, then attention to the text, in each block.

    Raises:
        ValueError: other frames or a reference of another kind stand among the video's tokens.
    """
    others = [name for name in ("time_dim_concat", "reference_latent") if call.conds.get(name) is not None]
    if others:
        raise ValueError(f"the conditioning also has {' and '.join(others)}, whose tokens stand among the video's")
    patch = call.network.patch_size[-1]
    parts = call.add_references(Parts().add("image", tokens_in(call.image, patch)), patch)
    block = [
        Stage("self-attention", 1, parts.size, call.layout(parts, patch), recorded=True),
        Stage("text attention", 1, call.text),
    ]
    return block * len(call.network.blocks)
