"""OmniGen2: [text | references | picture], after three refiners; that of the references mixes them."""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """Refiners of text, picture and references, then the layers."""
    layout = joint(call)
    return [*refiners(call), Stage("attention", len(call.network.layers), layout.size, layout, recorded=True)]


def joint(call: Call):
    """Lay out the layers."""
    patch = call.network.patch_size
    parts = call.add_references(Parts().add("text", call.text), patch).add("image", tokens_in(call.image, patch))
    return call.layout(parts, patch)


def refiners(call: Call) -> list[Stage]:
    """List the refiners in the order in which they run."""
    network, patch = call.network, call.network.patch_size
    parts = call.add_references(Parts(), patch)
    return [
        Stage("context refiner", len(network.context_refiner), call.text),
        Stage("noise refiner", len(network.noise_refiner), tokens_in(call.image, patch)),
        Stage("reference refiner", len(network.ref_image_refiner), parts.size, call.layout(parts, patch, alone=True)),
    ]
