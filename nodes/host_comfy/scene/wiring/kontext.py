"""Flux Kontext: references at its 17 sizes, Flux Guidance 2.5, drawn without a negative (cfg 1).

The negative is the zeroed text with the same references, unless one is written: with cfg above 1 guidance would
otherwise multiply the references themselves.
"""

from __future__ import annotations

from ...references.attach import zeroed
from .common import RecordingVAE, Request, Wiring, call, empty_latent, encode_text, with_guidance, with_references

GUIDANCE = 2.5


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    if request.megapixels == 0:  # Kontext's own sizes
        pictures = [call("nodes_flux.FluxKontextImageScale", pixels)[0] for pixels in request.pixels()]
    else:
        pictures = request.scaled()
    latents = [vae.encode(pixels) for pixels in pictures]
    text = encode_text(request.clip, request.prompt)
    negative = encode_text(request.clip, request.negative) if request.negative.strip() else zeroed(text)
    positive = with_guidance(with_references(text, latents), GUIDANCE)
    return Wiring(positive, with_references(negative, latents), empty_latent(request), vae.encoded_images())
