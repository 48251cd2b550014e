"""Boogu-Edit: OmniGen2's order and refiners, and blocks with a second attention over references and picture."""

from __future__ import annotations

from ....core.routing.call_layout import Parts, Stage
from . import omnigen2
from .call import Call, tokens_in


def stages(call: Call) -> list[Stage]:
    """Refiners; in each double block the joint attention, then that without the text; then the single blocks."""
    network, patch = call.network, call.network.patch_size
    layout = omnigen2.joint(call)
    parts = call.add_references(Parts(), patch).add("image", tokens_in(call.image, patch))
    double = [
        Stage("joint attention", 1, layout.size, layout, recorded=True),
        Stage("image attention", 1, parts.size, call.layout(parts, patch)),
    ]
    single = Stage("attention", len(network.single_stream_layers), layout.size, layout, recorded=True)
    return [*omnigen2.refiners(call), *double * len(network.double_stream_layers), single]
