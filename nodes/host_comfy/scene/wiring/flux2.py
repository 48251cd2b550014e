"""Flux.2 Klein and dev: references by number in plain text, the same ones on the negative side.

As ComfyUI's blueprints "Image Edit (Flux.2 Klein 4B)" and "(Flux.2 Dev)" wire it: text, Flux Guidance 4 on dev, a chain
of Reference Latents on both sides. Klein base draws with guidance 5; the distilled one and dev do not use the negative.
"""

from __future__ import annotations

from ..engines import FLUX2_DEV_CONTEXT
from .common import RecordingVAE, Request, Wiring, call, encode_text, with_guidance, with_references

DEV_GUIDANCE = 4.0


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    latents = [vae.encode(pixels) for pixels in request.scaled()]
    positive = encode_text(request.clip, request.prompt)
    if request.model.model.model_config.unet_config.get("context_in_dim") == FLUX2_DEV_CONTEXT:
        positive = with_guidance(positive, DEV_GUIDANCE)
    (latent,) = call("nodes_flux.EmptyFlux2LatentImage", request.width, request.height, request.batch_size)
    negative = with_references(encode_text(request.clip, request.negative), latents)
    return Wiring(with_references(positive, latents), negative, latent, vae.encoded_images())
