"""Boogu-Image-Edit: ComfyUI's node makes both sides; the text encoder sees the pictures on the positive side only."""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call, empty_latent


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    images = {f"image_{number}": pixels for number, pixels in enumerate(request.pixels(), start=1)}
    positive, negative = call(
        "nodes_boogu.TextEncodeBooguEdit", request.clip, request.prompt, request.negative, vae, images
    )
    return Wiring(positive, negative, empty_latent(request), vae.encoded_images())
