"""LongCat-Image-Edit: one picture, which its text encoder sees too, on both sides; method index, Flux Guidance 4.5.

As ComfyUI's blueprint "Image Edit (LongCat Image Edit)" wires it. The node scales once more, to one megapixel.
"""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call, empty_latent, with_guidance, with_method

GUIDANCE = 4.5


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    picture = next(iter(request.scaled()), None)

    def side(text: str) -> list:
        (conditioning,) = call("nodes_qwen.TextEncodeQwenImageEdit", request.clip, text, vae, picture)
        return with_method(with_guidance(conditioning, GUIDANCE), "index")

    return Wiring(side(request.prompt), side(request.negative), empty_latent(request), vae.encoded_images())
