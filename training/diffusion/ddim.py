"""Pictures on the way: deterministic DDIM (arXiv:2010.02502, eta 0) with guidance, for all kinds of prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .noise_schedule import TIMESTEPS, NoiseSchedule


def sampling_timesteps(steps: int) -> list[int]:
    """From 999 down, evenly."""
    return [round(TIMESTEPS - 1 - i * TIMESTEPS / steps) for i in range(steps)]


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """(N, *shape), each row from its own seed, on the CPU: the same on any card."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample(predict: Callable[[Tensor, Tensor], Tensor], schedule: NoiseSchedule, noise: Tensor, steps: int) -> Tensor:
    """Clean latents from noise.

    Args:
        predict: (N, C, h, w) noisy latents and (N,) timesteps to the network's (guided) prediction.
        schedule: the base's noise.
        noise: (N, C, h, w) from N(0, 1).
        steps: calls of the network.

    Returns:
        (N, C, h, w) float32.
    """
    timesteps = sampling_timesteps(steps)
    noisy = noise.float()
    for now, after in zip(timesteps, [*timesteps[1:], None]):
        t = torch.full((len(noise),), now, device=noise.device)
        clean = schedule.clean(noisy, predict(noisy, t), t)
        if after is None:
            return clean
        clean_factor, noise_factor = schedule.signal(t)
        drawn = (noisy - clean_factor * clean) / noise_factor
        noisy = schedule.add_noise(clean, drawn, torch.full_like(t, after))
    raise ValueError(f"sampling: expected at least 1 step, got {steps}.")
