"""Qwen-Image-Edit: up to three pictures, which its text encoder sees as "Picture 1" and so on, on both sides.

As ComfyUI's blueprints "Image Edit (Qwen 2509)" and "(Qwen 2511)" wire it; the node scales by itself. The first model
has one unnumbered picture and a node of its own.
"""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call, empty_latent, with_method

TIMESTEP_ZERO = "index_timestep_zero"  # what ComfyUI's detection writes down of 2511


def wire(request: Request) -> Wiring:
    """Return the wiring of 2509 and 2511."""
    method = request.model.model.model_config.unet_config.get("default_ref_method")
    return _both_sides(request, "nodes_qwen.TextEncodeQwenImageEditPlus", method if method == TIMESTEP_ZERO else None)


def wire_first(request: Request) -> Wiring:
    """Return the wiring of the first Qwen-Image-Edit."""
    return _both_sides(request, "nodes_qwen.TextEncodeQwenImageEdit", None)


def _both_sides(request: Request, node: str, method: str | None) -> Wiring:
    vae = RecordingVAE(request.vae)

    def side(text: str) -> list:
        (conditioning,) = call(node, request.clip, text, vae, *request.pixels())
        return conditioning if method is None else with_method(conditioning, method)

    return Wiring(side(request.prompt), side(request.negative), empty_latent(request), vae.encoded_images())
