"""Pictures from the small Flux: prompts with placeholders and references in, images out; steered or not.

Euler steps on the straight path from noise to picture, true guidance; the negative side has neither references nor
embeddings (DreamO, arXiv:2504.16915). Steering is the core's, as the node has it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.routing.reference_bias import HARD
from core.routing.reference_regions import attend_plain as plain_backend
from core.routing.routing import Routing
from core.routing.token_layout import PATCH, Reference

from ...host_diffusers.miniworld.architectures import LATENT_SIDE, VAE
from ...host_diffusers.miniworld.bundle import load_miniworld
from ...host_diffusers.miniworld.flux import Attend, RoutedFlux, attend_plain, sequence_of
from ...host_diffusers.miniworld.flux_files import load_flux
from ...host_diffusers.miniworld.flux_text import PlaceholderWords, encode_ids, with_placeholders
from ..recipes import clip, flux, vae
from ..recipes.corpus import PIXELS
from ..recipes.encoded_corpus import frozen_vae
from .generate import Request

GUIDANCE, SAMPLING_STEPS = 3.0, 20
STEERING = {"off": 0.0, "soft": 3.0, "hard": HARD}  # nats


@dataclass(frozen=True, eq=False)
class FluxWorld:
    """A variant of the small Flux with the models it was trained with, on the CPU.

    Attributes:
        flux: transformer and tables.
        text_g: the text encoder.
        autoencoder: of folded pixels.
        words: prompts to ids.
    """

    flux: RoutedFlux
    text_g: nn.Module
    autoencoder: nn.Module
    words: PlaceholderWords

    @classmethod
    def open(cls, out: Path, routing: bool) -> "FluxWorld":
        """A variant's run in `<out>`.

        Raises:
            FileNotFoundError: not trained yet.
        """
        text_g = clip.load_trained(out / "clip")[0].text_g
        return cls(flux.load_trained(out, routing), text_g, frozen_vae(out), PlaceholderWords())

    @classmethod
    def shipped(cls) -> "FluxWorld":
        """Read the pack's own models."""
        world = load_miniworld()
        return cls(load_flux(), world.text_g, world.vae, PlaceholderWords())

    def digest(self) -> str:
        """Of all weights; what others drew is not what these would."""
        found = hashlib.sha256()
        for part in (self.flux, self.text_g, self.autoencoder):
            for value in part.state_dict().values():
                found.update(value.contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    def latents(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 4, H/8, W/8) of unit variance."""
        return self.autoencoder.encode(vae.fold(images * 2 - 1)).latent_dist.mean * VAE["scaling_factor"]

    def images(self, latents: Tensor) -> Tensor:
        """The inverse."""
        return (vae.unfold(self.autoencoder.decode(latents / VAE["scaling_factor"]).sample) / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def generate(
    world: FluxWorld,
    request: Request,
    seed: int,
    steering: float = 0.0,
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """One picture.

    Args:
        world: the models.
        request: prompt, names, references, and boxes, which only steering reads; without references the prompt alone.
        seed: of the initial noise.
        steering: strength in nats that keeps each reference in its box; 0 is off, HARD closes the border.
        steps, guidance: of the sampler.
    Returns:
        (3, 128, 128) in [0, 1].
    """
    prompt = with_placeholders(request.prompt, request.names, tuple(range(1, len(request.names) + 1)))
    ids = world.words.ids(["", prompt])
    text, pooled = encode_ids(world.text_g, ids, world.flux.tables["words"])
    references = list(world.latents(request.references).split(1)) if len(request.references) else None
    channels = world.flux.transformer.config.in_channels // PATCH**2
    latents = torch.randn((1, channels, LATENT_SIDE, LATENT_SIDE), generator=torch.Generator().manual_seed(seed))
    attend = attend_plain
    if references is not None:
        places = world.words.places(ids[1:], len(references))[0].tolist()
        attend = steered(world.flux, references, request.boxes, places, steering, latents, text.shape[1])
    times = torch.linspace(1, 0, steps + 1)
    for now, then in zip(times[:-1], times[1:]):
        plain = world.flux(latents, now[None], text[:1], pooled[:1])
        asked = world.flux(latents, now[None], text[1:], pooled[1:], references, attend)
        latents = latents + (then - now) * (plain + guidance * (asked - plain))
    return world.images(latents)[0]


def steered(
    model: RoutedFlux,
    references: list[Tensor],
    boxes: Tensor,
    places: list[int],
    strength: float,
    noisy: Tensor,
    text_tokens: int,
) -> Attend:
    """Attention that keeps every reference, and its placeholder at `places`, in its box (R, 4)."""
    slots = range(1, len(references) + 1)
    routing = Routing(
        tuple(
            Reference(latent, "subject", slot, box_region(box)) for latent, slot, box in zip(references, slots, boxes)
        ),
        model.rows(),
        strength=strength,
        words={slot: (place,) for slot, place in zip(slots, places)},
    )
    layout = routing.layout(sequence_of(text_tokens, noisy, references))
    attention = routing.regions.attention(layout, (0, layout.size), device=noisy.device)
    if attention is None:
        return attend_plain
    return lambda query, key, value: attention(query, key, value, plain_backend)[0]


def box_region(box: Tensor) -> Tensor:
    """(128, 128) with 1 inside a box of fractions, at least one pixel of it."""
    x0, y0, x1, y1 = (round(float(edge) * PIXELS) for edge in box)
    region = torch.zeros(PIXELS, PIXELS)
    region[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1.0
    return region
