"""Z-Image Omni: ComfyUI's node once for each side, with our own scaling.

The node's own scaling is to multiples of 8; half of these make odd latents, which the network cannot cut into patches.
"""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call, empty_latent


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    pictures = request.scaled()

    def side(text: str) -> list:
        return call(
            "nodes_zimage.TextEncodeZImageOmni", request.clip, text, request.clip_vision, False, vae, *pictures
        )[0]

    return Wiring(side(request.prompt), side(request.negative), empty_latent(request), vae.encoded_images())
