"""Z-Image Omni: [captions | SigLIP tokens | references | picture], each part padded, after a refiner for each kind.

Captions stand around the references: one before each, the prompt, what follows. SigLIP tokens of a reference are a
second set of its tokens, and their refiner mixes references, as the refiner of references and picture does.
"""

from __future__ import annotations

from ....core.routing.call_layout import CallLayout, Parts, Span, Stage
from .call import Call, frames_of, grid_of, tokens_in


def stages(call: Call) -> list[Stage]:
    """Refiners of captions, of SigLIP tokens, of references and picture; then the layers."""
    network = call.network
    text, vision = captions(call), vision_tokens(call)
    tail = pictures(call, Parts())
    whole = pictures(call, vision_parts(call, Parts().add("text", text)))
    refiners = [Stage("context refiner", len(network.context_refiner), text)]
    if vision:
        parts = vision_parts(call, Parts())
        alone = layout(call, parts, alone=True)
        refiners.append(Stage("vision refiner", len(network.siglip_refiner), parts.size, alone))
    refiners.append(Stage("noise refiner", len(network.noise_refiner), tail.size, layout(call, tail)))
    return [*refiners, Stage("attention", len(network.layers), whole.size, layout(call, whole), recorded=True)]


def padded(tokens: int, network) -> int:
    """Round a number of tokens up to the padding's multiple."""
    multiple = network.pad_tokens_multiple or 1
    return -(-tokens // multiple) * multiple


def captions(call: Call) -> int:
    """Count the tokens of all captions: before references, the prompt, after; a missing one is a run of padding."""
    contexts = [context.shape[1] for context in call.conds.get("ref_contexts") or []]
    missing = max(0, len(call.latents) - len(contexts))
    return sum(padded(tokens, call.network) for tokens in (call.text, *contexts)) + missing * padded(1, call.network)


def vision_tokens(call: Call) -> list[int]:
    """Count the tokens of each reference's SigLIP picture, then those of the picture itself; [] without SigLIP."""
    if call.network.siglip_embedder is None:
        return []
    features = list(call.conds.get("siglip_feats") or [])[: len(call.latents)]
    counts = [padded(each.shape[1] * each.shape[2], call.network) for each in features]
    return counts + [padded(1, call.network)] * (len(call.latents) - len(counts) + 1)


def vision_parts(call: Call, parts: Parts) -> Parts:
    """Append the SigLIP tokens, one reference after another."""
    for index, tokens in enumerate(vision_tokens(call)):
        parts.add(("vision", index), tokens)
    return parts


def pictures(call: Call, parts: Parts) -> Parts:
    """Append references, then the picture and its padding."""
    patch = call.network.patch_size
    for index, shape in enumerate(call.latents):
        parts.add(index, padded(tokens_in(shape, patch), call.network))
    tokens = tokens_in(call.image, patch)
    parts.add("image", tokens)
    return parts.add("padding", padded(tokens, call.network) - tokens)


def layout(call: Call, parts: Parts, alone: bool = False) -> CallLayout:
    """Lay out the parts; SigLIP tokens of a reference are tokens of it, as its latents are."""
    spans = parts.spans
    text = spans.get("text")

    def of(index: int) -> tuple[Span, ...]:
        return tuple(spans[key] for key in (("vision", index), index) if key in spans)

    return CallLayout(
        parts.size,
        grid_of(call.image, call.network.patch_size),
        None if alone else spans["image"],
        () if text is None else (text,),
        tuple(of(index) for index in call.ours),
        frames=1 if alone else frames_of(call.image),
    )
