"""Pictures from the small Flux: prompts and references in, images out; steered or not, or one pass for each subject.

Euler steps on the straight path from noise to picture, true guidance; the negative side has neither references nor
embeddings (DreamO, arXiv:2504.16915). Steering is the core's, as the nodes have it: DreamO's variant names a reference
by its placeholder, the one with numbered references by its noun.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.routing.reference_bias import HARD
from core.routing.reference_regions import ReferenceRegions
from core.routing.reference_regions import attend_plain as plain_backend
from core.routing.routing import Routing
from core.routing.token_layout import Reference

from ...host_diffusers.miniworld.architectures import LATENT_SIDE, Words
from ...host_diffusers.miniworld.bundle import load_miniworld
from ...host_diffusers.miniworld.flux import Attend, IndexedFlux, RoutedFlux, attend_plain, sequence_of
from ...host_diffusers.miniworld.flux_files import FLUX_FOLDER, load_flux, stored
from ...host_diffusers.miniworld.flux_text import PlaceholderWords, encode_ids, with_placeholders
from ..recipes import autoencoder, contrastive, export, flux
from ..recipes.corpus import PIXELS
from ..recipes.encoded_corpus import frozen_autoencoder, latent_scale
from .generate import Request

GUIDANCE, SAMPLING_STEPS = 3.0, 20
STEERING = {"off": 0.0, "soft": 3.0, "hard": HARD}  # nats
Velocity = Callable[[Tensor, Tensor], Tensor]  # noisy (1, C, h, w), time (1,) to (1, C, h, w)


@dataclass(frozen=True, eq=False)
class FluxWorld:
    """A variant of the small Flux with the models it was trained with, on the CPU.

    Attributes:
        flux: transformer and tables.
        text_g: the text encoder.
        autoencoder: of folded pixels, latents of unit variance.
        words: prompts to ids.
    """

    flux: RoutedFlux
    text_g: nn.Module
    autoencoder: nn.Module
    words: PlaceholderWords

    @classmethod
    def open(cls, out: Path, name: str = flux.SETTINGS.name, rounded: bool = True) -> "FluxWorld":
        """Open a variant's run in `<out>`.

        Args:
            out: of the runs.
            name: key of `flux.KINDS`.
            rounded: weights as an exported file has them, else as they were trained.

        Raises:
            FileNotFoundError: not trained yet.
        """
        model, decoder = flux.load_trained(out, name), frozen_autoencoder(out)
        export.absorb_scale(decoder, *latent_scale(out))
        if rounded:
            weights = {key: stored(value).float() for key, value in model.transformer.state_dict().items()}
            model.transformer.load_state_dict(weights)
        return cls(model, contrastive.load_trained(out / "clip")[0].text_g, decoder, PlaceholderWords(Words()))

    @classmethod
    def shipped(cls, folder: Path = FLUX_FOLDER) -> "FluxWorld":
        """Open an exported variant, beside the exported encoders.

        Raises:
            FileNotFoundError: nothing exported there.
        """
        world = load_miniworld(folder.parent)
        return cls(load_flux(folder), world.text_g, world.vae, PlaceholderWords(world.words))

    def digest(self) -> str:
        """Hash all weights, to name pictures by the weights that drew them."""
        digest = hashlib.sha256()
        for part in (self.flux, self.text_g, self.autoencoder):
            for value in part.state_dict().values():
                digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def latents(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) in [0, 1], resized to 128 pixels, to (B, C, 16, 16) of unit variance."""
        small = F.interpolate(images, size=(PIXELS, PIXELS), mode="area")
        return autoencoder.encode(self.autoencoder, small)

    def images(self, latents: Tensor) -> Tensor:
        """Decode (B, C, h, w) to (B, 3, 8h, 8w) in [0, 1]."""
        return autoencoder.decode(self.autoencoder, latents).clamp(0, 1)

    def read(self, request: Request) -> tuple[Tensor, list[int]]:
        """Return ids (2, L) of the empty prompt and the request's, and where the latter names each reference."""
        slots = tuple(range(1, len(request.names) + 1))
        if not slots:
            return self.words.ids(["", request.prompt]), []
        if isinstance(self.flux, IndexedFlux):
            ids = self.words.ids(["", request.prompt])
            nouns = self.words.ids(list(request.names))[:, 1]
            return ids, (ids[1:] == nouns[:, None]).int().argmax(dim=1).tolist()
        ids = self.words.ids(["", with_placeholders(request.prompt, request.names, slots)])
        return ids, self.words.places(ids[1:], len(slots))[0].tolist()


@torch.no_grad()
def generate(
    world: FluxWorld,
    request: Request,
    seed: int,
    steering: float = 0.0,
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Draw one picture, all references in one pass.

    Args:
        world: the models.
        request: prompt, names, references, and boxes, which only steering reads; without references the prompt alone.
        seed: of the initial noise.
        steering: strength in nats that keeps each reference in its box; 0 is off, HARD closes the border.
        steps, guidance: of the sampler.

    Returns:
        (3, 128, 128) in [0, 1].
    """
    ids, places = world.read(request)
    references = list(world.latents(request.references).split(1)) if len(request.references) else None
    text, pooled = encode_ids(world.text_g, ids, world.flux.tables["words"])
    noisy = _noise(world, seed)
    attend = attend_plain
    if references is not None:
        attend = steered(world.flux, references, request.boxes, places, steering, noisy, text.shape[1])
    return _sample(
        world,
        noisy,
        lambda latents, now: world.flux(latents, now, text[:1], pooled[:1]),
        lambda latents, now: world.flux(latents, now, text[1:], pooled[1:], references, attend),
        steps,
        guidance,
    )


@torch.no_grad()
def generate_per_subject(
    world: FluxWorld, request: Request, seed: int, steps: int = SAMPLING_STEPS, guidance: float = GUIDANCE
) -> Tensor:
    """Draw one picture as users do without steering: a pass for each reference, each masked, the passes combined.

    The mean of the passes, weighted by their masks, is what ComfyUI makes of conditionings with Conditioning (Set Mask)
    that are combined; together the masks cover the picture. Arguments as `generate` has them.
    """
    ids, _ = world.read(request)
    references = list(world.latents(request.references).split(1))
    text, pooled = encode_ids(world.text_g, ids, world.flux.tables["words"])
    masks = cell_masks(request.boxes)  # (R, h, w)

    def conditional(latents: Tensor, now: Tensor) -> Tensor:
        passes = [world.flux(latents, now, text[1:], pooled[1:], [reference]) for reference in references]
        return (torch.cat(passes) * masks[:, None]).sum(0, keepdim=True) / masks.sum(0)

    def unconditional(latents: Tensor, now: Tensor) -> Tensor:
        return world.flux(latents, now, text[:1], pooled[:1])

    return _sample(world, _noise(world, seed), unconditional, conditional, steps, guidance)


def cell_masks(boxes: Tensor) -> Tensor:
    """Turn boxes (R, 4) into masks of their cells (R, 16, 16); a cell in none goes to the nearest box's middle."""
    middles = (torch.arange(LATENT_SIDE) + 0.5) / LATENT_SIDE
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    x0, y0, x1, y1 = (edge.view(-1, 1, 1) for edge in boxes.T)
    inside = ((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).float()
    away = (x - (x0 + x1) / 2).square() + (y - (y0 + y1) / 2).square()
    nearest = F.one_hot(away.argmin(0), len(boxes)).permute(2, 0, 1).float()
    return torch.where(inside.sum(0) > 0, inside, nearest)


def _noise(world: FluxWorld, seed: int) -> Tensor:
    channels = world.autoencoder.config.latent_channels
    return torch.randn((1, channels, LATENT_SIDE, LATENT_SIDE), generator=torch.Generator().manual_seed(seed))


def _sample(
    world: FluxWorld, latents: Tensor, unconditional: Velocity, conditional: Velocity, steps: int, guidance: float
) -> Tensor:
    """Follow the velocities from noise to a picture (3, 128, 128)."""
    times = torch.linspace(1, 0, steps + 1)
    for now, then in zip(times[:-1], times[1:]):
        base = unconditional(latents, now[None])
        latents = latents + (then - now) * (base + guidance * (conditional(latents, now[None]) - base))
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
    """Make the attention that keeps every reference, and its token at `places`, in its box (R, 4).

    As Apply References does it for DreamO's variant, and as Keep References in Place for the other.
    """
    sequence, areas = sequence_of(text_tokens, noisy, references), tuple(map(box_region, boxes))
    words = {slot: (place,) for slot, place in enumerate(places, start=1)}
    if isinstance(model, IndexedFlux):
        regions = ReferenceRegions(areas, (1.0,) * len(areas), strength)
        layout = sequence.layout(tuple(words.values()))
    else:
        subjects = (Reference(latent, "subject", slot, area) for slot, latent, area in zip(words, references, areas))
        routing = Routing(tuple(subjects), model.rows(), strength=strength, words=words)
        regions, layout = routing.regions, routing.layout(sequence)
    attention = regions.attention(layout, (0, layout.size), device=noisy.device)
    if attention is None:
        return attend_plain
    return lambda query, key, value: attention(query, key, value, plain_backend)[0]


def box_region(box: Tensor) -> Tensor:
    """Return (128, 128) with 1 inside a box of fractions, at least one pixel of it."""
    x0, y0, x1, y1 = (round(float(edge) * PIXELS) for edge in box)
    region = torch.zeros(PIXELS, PIXELS)
    region[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 1.0
    return region
