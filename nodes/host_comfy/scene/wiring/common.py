"""What every engine's wiring is made of: ComfyUI's own nodes, called as a graph would call them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..detection import core_node
from ..pictures import ReferenceImage, scaled


@dataclass(frozen=True, eq=False)
class Request:
    """What a wiring is made from.

    Attributes:
        model, clip, vae: the engine's own three.
        images: references in order, white outside their masks, unscaled.
        prompt, negative: texts, the prompt with its references named.
        width, height: of the output in pixels.
        batch_size: pictures to draw.
        megapixels: area of a reference; 0 for the engine's own.
        clip_vision: Z-Image Omni's SigLIP, if connected.
    """

    model: Any
    clip: Any
    vae: Any
    images: list[ReferenceImage]
    prompt: str
    negative: str
    width: int
    height: int
    batch_size: int
    megapixels: float = 0.0
    clip_vision: Any = None

    def pixels(self) -> list[Tensor]:
        """(1, H, W, 3) each, unscaled."""
        return [image.pixels for image in self.images]

    def scaled(self) -> list[Tensor]:
        """(1, h, w, 3) each, for the engines whose users scale by hand: one megapixel, multiples of 16."""
        return [scaled(image.pixels, self.megapixels or 1.0) for image in self.images]


@dataclass(frozen=True, eq=False)
class Wiring:
    """What goes to the sampler.

    Attributes:
        positive, negative: CONDITIONING.
        latent: empty.
        references: (1, h, w, 3) each, exactly what the VAE saw.
    """

    positive: list
    negative: list
    latent: dict
    references: list[Tensor] = field(default_factory=list)


class RecordingVAE:
    """A VAE that remembers what it encoded: for the preview, and so that the negative costs no second encoding."""

    def __init__(self, vae) -> None:
        self._vae = vae
        self._encoded: list[tuple[Tensor, Tensor]] = []

    def __getattr__(self, name: str):
        return getattr(self._vae, name)

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the VAE's latent of (1, H, W, 3)."""
        for seen, latent in self._encoded:
            if seen.shape == pixels.shape and torch.equal(seen, pixels):
                return latent
        latent = self._vae.encode(pixels)
        self._encoded.append((pixels, latent))
        return latent

    def seen(self) -> list[Tensor]:
        """Return what the network got: ComfyUI cuts pictures to multiples of the VAE's factor."""
        return [self._vae.vae_encode_crop_pixels(pixels) for pixels, _ in self._encoded]


def call(node: str, *args, **inputs) -> tuple:
    """Return the outputs of one of ComfyUI's nodes, by "module.Class" below comfy_extras."""
    return (
        core_node(node)
        .execute(  # pyright: ignore[reportOptionalMemberAccess] (offered where it is there)
            *args, **inputs
        )
        .args
    )


def encode_text(clip, text: str) -> list:
    """CONDITIONING of a text, as CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def with_references(conditioning: list, latents: list[Tensor]) -> list:
    """Return a chain of Reference Latent nodes."""
    for latent in latents:
        (conditioning,) = call("nodes_edit_model.ReferenceLatent", conditioning, {"samples": latent})
    return conditioning


def with_method(conditioning: list, method: str) -> list:
    """Edit Model Reference Method: how references are told from the picture by position."""
    return call("nodes_flux.FluxKontextMultiReferenceLatentMethod", conditioning, method)[0]


def with_guidance(conditioning: list, guidance: float) -> list:
    """Flux Guidance."""
    return call("nodes_flux.FluxGuidance", conditioning, guidance)[0]


def zeroed(conditioning: list) -> list:
    """Conditioning Zero Out."""
    return [
        [
            torch.zeros_like(context),
            {
                key: torch.zeros_like(value) if key == "pooled_output" and value is not None else value
                for key, value in entry.items()
            },
        ]
        for context, entry in conditioning
    ]


def empty_latent(request: Request) -> dict:
    """Empty latent of 16 channels; ComfyUI adds the time axis where a model has one."""
    return call("nodes_sd3.EmptySD3LatentImage", request.width, request.height, request.batch_size)[0]
