"""Krea 2: references as latents only, and only with a method: without one ComfyUI's network ignores them.

The base model is made for text; references act through an edit LoRA.
"""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, empty_latent, encode_text, with_method, with_references


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    latents = [vae.encode(pixels) for pixels in request.scaled()]

    def side(text: str) -> list:
        return with_method(with_references(encode_text(request.clip, text), latents), "index")

    return Wiring(side(request.prompt), side(request.negative), empty_latent(request), vae.encoded_images())
