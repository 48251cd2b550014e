"""The parts of every engine's wiring: ComfyUI's own nodes, called as a graph would call them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..detection import core_node
from ..pictures import ReferenceImage, scaled


@dataclass(frozen=True, eq=False)
class Request:
    """The inputs of a wiring.

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
    """The sampler's inputs.

    Attributes:
        positive, negative: CONDITIONING.
        latent: empty.
        references: (1, h, w, 3) each, as the VAE encoded them.
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
        """Encode (1, H, W, 3) to the VAE's latent."""
        for encoded_pixels, latent in self._encoded:
            if encoded_pixels.shape == pixels.shape and torch.equal(encoded_pixels, pixels):
                return latent
        latent = self._vae.encode(pixels)
        self._encoded.append((pixels, latent))
        return latent

    def encoded_images(self) -> list[Tensor]:
        """List the pictures as the network got them: ComfyUI cuts them to multiples of the VAE's factor."""
        return [self._vae.vae_encode_crop_pixels(pixels) for pixels, _ in self._encoded]


def call(node: str, *args, **inputs) -> tuple:
    """Call one of ComfyUI's nodes, by "module.Class" below comfy_extras, and return its outputs."""
    node_class: Any = core_node(node)  # the engine is offered only where the node is there
    return node_class.execute(*args, **inputs).args


def encode_text(clip, text: str) -> list:
    """Encode a text to CONDITIONING as CLIP Text Encode does."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def with_references(conditioning: list, latents: list[Tensor]) -> list:
    """Add latents by a chain of Reference Latent nodes."""
    for latent in latents:
        (conditioning,) = call("nodes_edit_model.ReferenceLatent", conditioning, {"samples": latent})
    return conditioning


def with_method(conditioning: list, method: str) -> list:
    """Set the rule of the references' positions by Edit Model Reference Method."""
    return call("nodes_flux.FluxKontextMultiReferenceLatentMethod", conditioning, method)[0]


def with_guidance(conditioning: list, guidance: float) -> list:
    """Set the distilled guidance by Flux Guidance."""
    return call("nodes_flux.FluxGuidance", conditioning, guidance)[0]


def empty_latent(request: Request) -> dict:
    """Make an empty latent of 16 channels; ComfyUI adds the time axis where a model has one."""
    return call("nodes_sd3.EmptySD3LatentImage", request.width, request.height, request.batch_size)[0]
