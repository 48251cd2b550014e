"""Deterministic DDIM (arXiv:2010.02502, equation 12 with eta 0), for all kinds of prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .noise_schedule import TIMESTEPS, NoiseSchedule


def sampling_timesteps(steps: int, spacing: str = "trailing") -> list[int]:
    """Return the timesteps at which the network is called, falling.

    Args:
        steps: how many.
        spacing: ``trailing`` from 999 down, evenly; ``leading`` with offset 1, as SDXL's scheduler config.
    """
    if spacing == "leading":
        return [(steps - 1 - i) * (TIMESTEPS // steps) + 1 for i in range(steps)]
    return [round(TIMESTEPS - 1 - i * TIMESTEPS / steps) for i in range(steps)]


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Draw (N, *shape), each row from its own seed, on the CPU: the same on any card."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    schedule: NoiseSchedule,
    noise: Tensor,
    steps: int,
    spacing: str = "trailing",
) -> Tensor:
    """Denoise pure noise.

    Args:
        predict: (N, C, h, w) noisy latents and (N,) timesteps to the network's (guided) prediction.
        schedule: the base's noise.
        noise: (N, C, h, w) from N(0, 1).
        steps: calls of the network.
        spacing: of `sampling_timesteps`. ``trailing`` ends without noise; ``leading`` with the little of timestep 0,
            as SDXL's scheduler config says.

    Returns:
        (N, C, h, w) float32.

    Raises:
        ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"sampling: expected at least 1 step, got {steps}.")
    timesteps = sampling_timesteps(steps, spacing)
    noisy = noise.float()
    for now, after in zip(timesteps, [*timesteps[1:], 0 if spacing == "leading" else None]):
        # 1. call the network; 2. split its prediction into picture and noise; 3. mix them for the next timestep
        t = torch.full((len(noise),), now, device=noise.device)
        predicted = predict(noisy, t)
        clean = schedule.clean(noisy, predicted, t)
        if after is None:
            return clean
        noisy = schedule.add_noise(clean, schedule.noise(noisy, predicted, clean, t), torch.full_like(t, after))
    return noisy
