"""Draw pictures with the miniworld: prompts, references and boxes in, images out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...diffusion.ddim import sample
from ...host_diffusers import CrossAttentionExtras, attach_identity, identity_batch
from ...host_diffusers.clipself import encoder_of_transformers
from ...host_diffusers.miniworld.architectures import LATENT_SIDE
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.corpus import PORTRAIT_PIXELS
from ..recipes.denoiser import SCHEDULE, STRENGTH, time_ids
from ..recipes.pictures import to_tensor
from ..world.renderer import render
from ..world.rng_streams import Stream, generator
from ..world.scene import ScenePlan, portrait
from ..world.traits import CreatureTraits, draw_traits

GUIDANCE, SAMPLING_STEPS = 4.0, 30
BATCH = 8
TOKENS = {"clip": slice(0, 65), "local": slice(65, None)}  # of a subject: one class token, 64 patches, then the grid


@dataclass(frozen=True, eq=False)
class Request:
    """One picture to make.

    Attributes:
        prompt: the sentence.
        names: the subjects' nouns.
        references: (S, 3, H, W) in [0, 1], one photograph per subject.
        boxes: (S, 4) fractions.
        strangers: (S, 3, H, W) photographs that some of the tokens are taken from instead, see Drawing; or None.
    """

    prompt: str
    names: tuple[str, ...]
    references: Tensor
    boxes: Tensor
    strangers: Tensor | None = None


def request_of(plan: ScenePlan, seed: int, index: int = 0) -> Request:
    """Make the request of a plan: its caption and boxes, and fresh portraits of its cast on other backdrops.

    Args:
        plan: of the picture.
        seed, index: of the portraits.
    """
    references = _portraits(generator(seed, Stream.REFERENCE, index), plan.cast, plan.backdrop.place)
    return Request(plan.caption.prompt, plan.caption.names, references, torch.from_numpy(render(plan).boxes))


def with_strangers(request: Request, plan: ScenePlan, seed: int, index: int) -> Request:
    """Add portraits of other identities of the same species to a request."""
    rng = generator(seed, Stream.STRANGER, index)
    others = [mismatched_identity(traits, rng) for traits in plan.cast]
    return replace(request, strangers=_portraits(rng, others, plan.backdrop.place))


def mismatched_identity(traits: CreatureTraits, rng: np.random.Generator) -> CreatureTraits:
    """Draw another identity of the same species, whose emblem differs in shape and in colour."""
    while True:
        other = replace(draw_traits(rng, held_out=None), species=traits.species)
        if other.emblem != traits.emblem and other.emblem_colour != traits.emblem_colour:
            return other


def _portraits(rng: np.random.Generator, cast: Sequence[CreatureTraits], avoid: str) -> Tensor:
    return to_tensor([render(portrait(rng, traits, avoid), PORTRAIT_PIXELS).image for traits in cast])


@torch.no_grad()
def generate(
    world: Miniworld,
    requests: list[Request],
    seed: int,
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
    strength: float = STRENGTH,
    grid: int = 4,
    stranger: str = "",
) -> Tensor:
    """Sample one picture per request with classifier-free guidance; the negative half has no identity.

    Args:
        world: the models, on their device.
        requests: what to draw, at most 3 subjects each.
        seed: of the initial noise, drawn on the CPU.
        steps, guidance: of the sampler.
        strength: of the image branch; 0 leaves it out.
        grid: of the local tokens; 0 leaves them out.
        stranger: the tokens taken from the requests' strangers, see Drawing.
    Returns:
        (B, 3, 128, 128) in [0, 1] on the CPU.
    """
    device, count = world.device, len(requests)
    detach = attach_identity(world.unet, strength)
    text, pooled = world.encode_prompts([""] * count + [request.prompt for request in requests])
    identity = subject_tokens(world, requests, grid, stranger).absent_before()
    shape = (count, world.unet.config.in_channels, LATENT_SIDE, LATENT_SIDE)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        noise_pair = world.unet(
            torch.cat((latents, latents)),
            time[0],
            text,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids(2 * count, device)},
            cross_attention_kwargs=CrossAttentionExtras(identity=identity).kwargs(),
        ).sample
        unconditional, conditional = noise_pair.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    try:
        return world.to_images(sample(predict, SCHEDULE, noise, steps, "leading")).cpu()
    finally:
        detach()


def subject_tokens(world: Miniworld, requests: list[Request], grid: int, stranger: str = ""):
    """Encode the requests' subjects as keys and values of every layer, padded to the most subjects of a request."""
    device, count = world.device, len(requests)
    subjects = max(len(request.names) for request in requests)
    sizes = world.identity.config.resampler
    tokens = torch.zeros(count, subjects, sizes.tokens, sizes.context_width, device=device)
    boxes, weights = torch.zeros(count, subjects, 4, device=device), torch.zeros(count, subjects, device=device)
    for row, request in enumerate(requests):
        features = world.encode_subjects(request.references, grid=grid)
        phrases = world.encode_phrases(list(request.names))
        if stranger:
            features[:, TOKENS[stranger]] = world.encode_subjects(request.strangers, grid=grid)[:, TOKENS[stranger]]
        size = len(request.names)
        boxes[row, :size], weights[row, :size] = request.boxes.to(device), 1.0
        tokens[row, :size] = world.identity.image_proj(features, phrases, boxes[row, :size])
    return identity_batch(
        world.identity.ms_adapter,
        tokens,
        world.identity.dummy_image_tokens[0],
        boxes,
        weights,
        (LATENT_SIDE, LATENT_SIDE),
        world.unet,
    )


@dataclass(frozen=True)
class Drawing:
    """Settings of drawing.

    Attributes:
        strength: of the image branch.
        grid: of the local tokens; 0 leaves them out.
        boxes: overlapping as the relation needs them, or cut apart where they overlap.
        stranger: "clip" or "local": these tokens of every subject are another identity's of its species; "" is none.
        steps: of the sampler.
        distilled: local tokens are the distilled encoder's, else those of the one it was distilled from.
    """

    strength: float = STRENGTH
    grid: int = 4
    boxes: str = "overlapping"
    stranger: str = ""
    steps: int = SAMPLING_STEPS
    distilled: bool = True


PLAIN = Drawing()


def generate_images(
    world: Miniworld,
    plans: list[ScenePlan],
    seed: int,
    how: Drawing = PLAIN,
    first: int = 0,
) -> Tensor:
    """Draw plans: the same plan, place in the list and seed give the same noise and the same references.

    Args:
        world: the models.
        plans: of two creatures each.
        seed: of noise and references.
        how: see Drawing.
        first: the plans before this one are left out; a multiple of BATCH.

    Returns:
        (B, 3, 128, 128) in [0, 1].
    """
    if not how.distilled:
        world = replace(world, local=encoder_of_transformers(world.vision))
    pictures = []
    for start in range(first, len(plans), BATCH):
        requests = []
        for index, plan in enumerate(plans[start : start + BATCH], start):
            request = request_of(plan, seed, index)
            if how.boxes == "apart":
                request = replace(request, boxes=apart(request.boxes))
            requests.append(with_strangers(request, plan, seed, index) if how.stranger else request)
        pictures.append(
            generate(world, requests, seed + start, how.steps, GUIDANCE, how.strength, how.grid, how.stranger)
        )
    return torch.cat(pictures)


@torch.no_grad()
def copies(world: Miniworld, images: Tensor) -> Tensor:
    """Send pictures (B, 3, H, W) through the autoencoder and back on the models' device; return them on the CPU."""
    return torch.cat([world.to_images(world.to_latents(part.to(world.device))).cpu() for part in images.split(16)])


def apart(boxes: Tensor) -> Tensor:
    """Cut two boxes at the middle of their overlap, along the side where they overlap less: (2, 4) to (2, 4)."""
    low, high = torch.maximum(boxes[0, :2], boxes[1, :2]), torch.minimum(boxes[0, 2:], boxes[1, 2:])
    overlap = high - low
    if bool((overlap <= 0).any()):
        return boxes
    side = int(overlap.argmin())
    middle = (low[side] + high[side]) / 2
    first = int(boxes[:, side].argmin())
    result = boxes.clone()
    result[first, side + 2], result[1 - first, side] = middle, middle
    return result
