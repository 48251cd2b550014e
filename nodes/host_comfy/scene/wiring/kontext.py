"""Flux Kontext: references at its 17 sizes, Flux Guidance 2.5, drawn without a negative (cfg 1).

The negative is the zeroed text with the same references, unless one is written: with cfg above 1 guidance would
otherwise multiply the references themselves.
"""

from __future__ import annotations

from .common import (
    RecordingVAE,
    Request,
    Wiring,
    call,
    empty_latent,
    encode_text,
    with_guidance,
    with_references,
    zeroed,
)

GUIDANCE = 2.5


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    own_sizes = request.megapixels == 0
    pictures = (
        [call("nodes_flux.FluxKontextImageScale", pixels)[0] for pixels in request.pixels()]
        if own_sizes
        else request.scaled()
    )
    latents = [vae.encode(pixels) for pixels in pictures]
    text = encode_text(request.clip, request.prompt)
    against = encode_text(request.clip, request.negative) if request.negative.strip() else zeroed(text)
    positive = with_guidance(with_references(text, latents), GUIDANCE)
    return Wiring(positive, with_references(against, latents), empty_latent(request), vae.seen())
