"""SDXL's noise schedule, and the DDIM sampler on it.

Source: DDPM (arXiv:2006.11239), DDIM (arXiv:2010.02502, eq. 12 with eta 0); betas "scaled linear" .00085 to .012.
"""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 1000


def signal_shares(device: torch.device) -> Tensor:
    """(1000,) cumulative products of 1 - beta."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float().to(device)


def add_noise(latents: Tensor, noise: Tensor, shares: Tensor) -> Tensor:
    """(B, ...) latents at signal shares (B,)."""
    shares = shares.view(-1, *[1] * (latents.ndim - 1))
    return shares.sqrt() * latents + (1 - shares).sqrt() * noise


@torch.no_grad()
def ddim(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Deterministic sampling with leading timesteps, offset 1, as SDXL's scheduler config.

    Args:
        predict: (latents, timestep ()) to predicted noise, guidance included.
        noise: (B, 4, h, w) standard normal.
        steps: how many.
    Returns:
        (B, 4, h, w) clean latents.
    """
    shares = signal_shares(noise.device)
    times = torch.arange(steps).flip(0) * (STEPS // steps) + 1
    latents = noise
    for index, time in enumerate(times.tolist()):
        now = shares[time]
        then = shares[times[index + 1]] if index + 1 < steps else shares[0]
        epsilon = predict(latents, torch.tensor(time, device=noise.device))
        clean = (latents - (1 - now).sqrt() * epsilon) / now.sqrt()
        latents = then.sqrt() * clean + (1 - then).sqrt() * epsilon
    return latents
