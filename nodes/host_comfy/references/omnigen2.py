"""OmniGen2: [text | references | picture], after three refiners; that of the references mixes them."""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """Refiners of text, picture and references, then the layers."""
    layout = joint(call)
    return [*refiners(call), Stage("attention", len(call.network.layers), layout.size, layout, recorded=True)]


def joint(call: Call):
    """Return the layout of the layers."""
    patch = call.network.patch_size
    parts = references(call, Parts().add("text", call.text)).add("image", tokens_in(call.image, patch))
    return call.layout(parts, patch)


def references(call: Call, parts: Parts) -> Parts:
    """Return the reference latents, one after another."""
    for index, shape in enumerate(call.latents):
        parts.add(index, tokens_in(shape, call.network.patch_size))
    return parts


def refiners(call: Call) -> list[Stage]:
    """In the order in which they run."""
    network, patch = call.network, call.network.patch_size
    parts = references(call, Parts())
    return [
        Stage("context refiner", len(network.context_refiner), call.text),
        Stage("noise refiner", len(network.noise_refiner), tokens_in(call.image, patch)),
        Stage("reference refiner", len(network.ref_image_refiner), parts.size, call.layout(parts, patch, alone=True)),
    ]
