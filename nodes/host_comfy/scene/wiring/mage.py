"""Mage-Flow-Edit: ComfyUI's node makes both sides and the latent; references are stretched to the output's size."""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    images = {f"image_{number}": pixels for number, pixels in enumerate(request.pixels(), start=1)}
    positive, negative, latent = call(
        "nodes_mage.TextEncodeMageFlowEdit",
        request.clip,
        request.prompt,
        request.negative,
        vae,
        images,
        request.width,
        request.height,
        request.batch_size,
    )
    return Wiring(positive, negative, latent, vae.encoded_images())
