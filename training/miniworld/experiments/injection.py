"""How local tokens join CLIP's: behind them, added to the patches where they lie, or mixed into these by a layer.

The shipped branch knows the first way alone, so for each way resampler and branch are trained on, from the shipped
weights, with the UNet frozen. Source: DreamRelation (arXiv:2410.23280), table 8.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange, repeat
from safetensors.torch import load_file
from torch import Tensor, nn

from core.checkpoint import save

from ...diffusion.noise_schedule import TIMESTEPS, denoising_loss
from ...host_diffusers.miniworld.bundle import Miniworld
from ..recipes.denoiser import SCHEDULE, SNR_CEILING, Denoiser
from ..recipes.warm_start import denoiser_of
from ..world.relations import SEEN
from ..world.rng_streams import Stream, generator
from ..world.scene import draw_plan
from .generate import TOKENS, request_of
from .measure import renders

CONCATENATED, ADDED, MIXED = "concatenated", "added", "mixed"
SCENES, STEPS, BATCH_SIZE, LEARNING_RATE, CLIP_NORM = 1000, 600, 8, 3e-4, 1.0
_SEED = 8000  # scenes that nothing else is drawn from
_TRAINED = ("identity.image_proj.", "identity.ms_adapter.", "injection.")


class Injection(nn.Module):
    """A subject's features as the resampler reads them.

    Args:
        way: CONCATENATED, ADDED or MIXED.
        width: of a token.
    """

    def __init__(self, way: str, width: int) -> None:
        super().__init__()
        self.way = way
        if way == MIXED:  # begins as CLIP's patches alone
            self.mix = nn.Linear(2 * width, width)
            with torch.no_grad():
                self.mix.weight.copy_(torch.eye(width, 2 * width))
                self.mix.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        """(S, 1 + h*h + g*g, W), the class token, patches and local tokens, to what the resampler reads."""
        if self.way == CONCATENATED:
            return features
        image, local = features[:, TOKENS["clip"]], features[:, TOKENS["local"]]
        first, patches = image[:, :1], image[:, 1:]
        grid, side = math.isqrt(local.shape[1]), math.isqrt(patches.shape[1])
        cells = rearrange(local, "s (h w) c -> s h w c", h=grid)
        spread = repeat(cells, "s h w c -> s (h p) (w q) c", p=side // grid, q=side // grid).flatten(1, 2)
        patches = patches + spread if self.way == ADDED else self.mix(torch.cat((patches, spread), dim=-1))
        return torch.cat((first, patches), dim=1)


def train_injection(world: Miniworld, way: str, folder: Path, seed: int, steps: int = STEPS) -> Path:
    """Train resampler and branch on with one way, or take the file that an earlier call made.

    Scenes are encoded once for all ways, into `scenes-<seed>.safetensors` in `folder`.

    Args:
        world: the base; its weights stay as they are.
        way: of `Injection`.
        folder: receives `<way>/<seed>/injection.safetensors`.
        seed: of scenes, noise and order; all ways see the same.
        steps: of BATCH_SIZE pictures.

    Returns:
        The file: everything that was trained.
    """
    file = folder / way / str(seed) / "injection.safetensors"
    if file.exists():
        return file
    # 1. what is trained
    model = denoiser_of(world).requires_grad_(False)
    model.injection = Injection(way, world.vision.config.hidden_size)
    model.identity.image_proj.register_forward_pre_hook(_before_resampler(model.injection))
    parameters = {name: value for name, value in model.named_parameters() if name.startswith(_TRAINED)}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    # 2. scenes of seen identities in seen relations
    scenes = folder / f"scenes-{seed}.safetensors"
    if not scenes.exists():
        save(scenes, _scenes(world, seed), {"kind": "encoded scenes of the miniworld"})
    conditions = load_file(scenes)
    latents = conditions.pop("latents")
    # 3. the steps
    optimiser = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE)
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(latents), (BATCH_SIZE,), generator=random)
        time = torch.randint(TIMESTEPS, (BATCH_SIZE,), generator=random)
        noise = torch.randn((BATCH_SIZE, *latents.shape[1:]), generator=random)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        loss = _loss(model, {name: value[rows] for name, value in conditions.items()}, latents[rows], noise, time)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), CLIP_NORM)
        optimiser.step()
    state = {name: parameter.detach().contiguous() for name, parameter in parameters.items()}
    save(file, state, {"kind": "identity branch of the miniworld", "local tokens": way})
    return file


def _loss(model: Denoiser, conditions: dict[str, Tensor], latents: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    predicted = model(SCHEDULE.add_noise(latents, noise, time), time, **conditions)
    return (denoising_loss(predicted, noise) * SCHEDULE.min_snr_weight(time, SNR_CEILING)).mean()


@torch.no_grad()
def _scenes(world: Miniworld, seed: int) -> dict[str, Tensor]:
    """Draw and encode scenes of two seen identities: the conditions of `Denoiser.forward`, and latents (N, C, h, w)."""
    plans = [
        draw_plan(generator(_SEED + seed, Stream.TRIPLET, index), relation=SEEN[index % len(SEEN)])
        for index in range(SCENES)
    ]
    requests = [request_of(plan, _SEED + seed, index) for index, plan in enumerate(plans)]
    text, pooled = world.encode_prompts([request.prompt for request in requests])
    boxes = torch.stack([request.boxes for request in requests])
    latents = torch.cat([world.to_latents(renders(plans[start : start + 50])) for start in range(0, SCENES, 50)])
    return {
        "latents": latents,
        "text": text,
        "pooled": pooled,
        "references": torch.stack([world.encode_subjects(request.references) for request in requests]),
        "phrases": torch.stack([world.encode_phrases(list(request.names)) for request in requests]),
        "boxes": boxes,
        "weights": torch.ones(boxes.shape[:2]),
        "grounded": torch.ones(boxes.shape[:2], dtype=torch.bool),
    }


@contextmanager
def with_injection(world: Miniworld, way: str, file: Path) -> Iterator[None]:
    """Draw with a trained branch and its way while the block runs."""
    state = load_file(file)
    injection = Injection(way, world.vision.config.hidden_size)
    injection.load_state_dict(_part(state, "injection."))
    own = {name: value.clone() for name, value in world.identity.state_dict().items()}
    world.identity.load_state_dict(own | _part(state, "identity."))
    hook = world.identity.image_proj.register_forward_pre_hook(_before_resampler(injection.requires_grad_(False)))
    try:
        yield
    finally:
        hook.remove()
        world.identity.load_state_dict(own)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _before_resampler(injection: Injection):
    def hook(_module: nn.Module, inputs: tuple) -> tuple:
        return injection(inputs[0]), *inputs[1:]

    return hook
