"""OmniGen2: references on the positive side and on the second condition of Dual CFG Guider.

The negative output is that second condition: the negative text with the references. It is also the negative of a plain
KSampler. The guider's own negative is the negative text alone, from a CLIP Text Encode node.
"""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, empty_latent, encode_text, with_references


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    latents = [vae.encode(pixels) for pixels in request.scaled()]
    positive, negative = (
        with_references(encode_text(request.clip, text), latents) for text in (request.prompt, request.negative)
    )
    return Wiring(positive, negative, empty_latent(request), vae.encoded_images())
