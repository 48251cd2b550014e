"""Flux.1, Kontext, LongCat-Image-Edit and Flux.2: [text | picture | references] in every block.

A cache of references (Flux KV Cache) leaves their queries out after its first step, and keeps their keys in place.
"""

from __future__ import annotations

import torch

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """All double and single blocks are alike."""
    network = call.network
    return [text_image_references(call, network.patch_size, len(network.double_blocks) + len(network.single_blocks))]


def text_image_references(call: Call, patch: int, blocks: int) -> Stage:
    """Lay out [text | picture | references], which most families share."""
    parts = Parts().add("text", call.text).add("image", tokens_in(call.image, patch))
    cached = (0, parts.size)
    tokens = tuple(tokens_in(shape, patch) for shape in call.latents)
    call.add_references(parts, patch)
    return Stage("attention", blocks, parts.size, call.layout(parts, patch), True, tokens, cached)


def padded(conds: dict, size: int) -> dict:
    """Pad the attention mask (Redux's) of a call's conditions to all tokens.

    ComfyUI's own mask covers the text and the picture alone.
    """
    mask = conds.get("attention_mask")
    if mask is None or mask.shape[-1] == size:
        return conds
    short = size - mask.shape[-1]
    return {**conds, "attention_mask": torch.nn.functional.pad(mask, (0, short, 0, short))}
