"""JoyImage-Edit: ComfyUI's node once for each side; it scales to one of its sizes, which the text encoder sees too."""

from __future__ import annotations

from .common import RecordingVAE, Request, Wiring, call, empty_latent


def wire(request: Request) -> Wiring:
    vae = RecordingVAE(request.vae)
    images = {f"image{number}": pixels for number, pixels in enumerate(request.pixels())}

    def side(text: str) -> list:
        return call("nodes_joyimage.TextEncodeJoyImageEdit", request.clip, text, vae, images)[0]

    return Wiring(side(request.prompt), side(request.negative), empty_latent(request), vae.encoded_images())
