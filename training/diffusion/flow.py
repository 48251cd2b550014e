"""Flow matching in continuous time: densities of training times, weights of the loss, a sampler.

    x_t = (1 - t) x_0 + t e      target e - x_0      x_0 = x_t - t v      t in [0, 1], 1 is noise    (arXiv:2210.02747)

Densities: uniform; logit-normal, the sigmoid of a normal number (SD3, arXiv:2403.03206, section 3.1); shifted, that one
moved towards noise by t s / (1 + (s - 1) t) with s = exp(mu) and mu linear in the picture's tokens, as Flux samples.
With SNR = ((1 - t) / t)^2 the errors are ||x_0 error|| = t ||v error|| and ||e error|| = (1 - t) ||v error||, so
epsilon's plain loss is (1 - t)^2 times the velocity's, x_0's is t^2 times it. SDXL's timestep t of signal a has the SNR
of the flow time 1 / (1 + sqrt(a / (1 - a))): 333 is 0.4825.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

DENSITIES = ("uniform", "logit_normal", "shift")
WEIGHTINGS = ("none", "epsilon", "min_snr", "x0")
_FEW, _MANY = (256, 0.5), (4096, 1.15)  # picture tokens and mu of Flux's scheduler


def shift_of(tokens: int) -> float:
    """Compute s = exp(mu) of a picture with so many tokens: 1.88 for 1024, 3.16 for 4096."""
    slope = (_MANY[1] - _FEW[1]) / (_MANY[0] - _FEW[0])
    return math.exp(_FEW[1] + slope * (tokens - _FEW[0]))


def shifted(times: Tensor, shift: float) -> Tensor:
    """Move times towards noise; a shift of 1 moves nothing."""
    return times * shift / (1 + (shift - 1) * times)


def sample_times(
    density: str, count: int, generator: torch.Generator, mean: float = 0.0, deviation: float = 1.0, shift: float = 1.0
) -> Tensor:
    """Draw (count,) times in (0, 1).

    Args:
        density: one of DENSITIES.
        count: how many.
        generator: on the CPU.
        mean, deviation: of the normal number before the sigmoid.
        shift: of the density ``shift``.

    Raises:
        ValueError: another density.
    """
    if density not in DENSITIES:
        raise ValueError(f"density: expected one of {', '.join(DENSITIES)}, got {density!r}.")
    if density == "uniform":
        return torch.rand(count, generator=generator).clamp_min(1e-4)
    times = (mean + deviation * torch.randn(count, generator=generator)).sigmoid()
    return shifted(times, shift) if density == "shift" else times


def add_noise(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Mix (B, ...) latents and noise to x_t at (B,) times."""
    share = times.view(-1, *[1] * (clean.ndim - 1))
    return (1 - share) * clean + share * noise


def clean_of(noisy: Tensor, velocity: Tensor, times: Tensor) -> Tensor:
    """Return the x_0 that a predicted velocity implies, float32."""
    return noisy.float() - times.view(-1, *[1] * (noisy.ndim - 1)) * velocity.float()


def loss_weight(times: Tensor, weighting: str, gamma: float = 5.0) -> Tensor:
    """Return the (B,) factor on the velocity's squared error that makes it another prediction's loss.

    Args:
        times: (B,).
        weighting: one of WEIGHTINGS.
        gamma: of min-SNR (arXiv:2303.09556).

    Raises:
        ValueError: another weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, got {weighting!r}.")
    if weighting == "none":
        return torch.ones_like(times)
    if weighting == "x0":
        return times.square()
    of_noise = (1 - times).square()
    if weighting == "epsilon":
        return of_noise
    return times.square().mul(gamma).minimum(of_noise)  # (1 - t)^2 min(SNR, g) / SNR without its 0 / 0


@torch.no_grad()
def euler(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int, shift: float = 1.0) -> Tensor:
    """Walk from noise to a picture along the predicted velocity.

    Args:
        predict: (N, ...) latents and (N,) times to (N, ...) velocities.
        noise: (N, ...) from N(0, 1).
        steps: calls.
        shift: moves the times towards noise.

    Returns:
        (N, ...) float32.

    Raises:
        ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"sampling: expected at least 1 step, got {steps}.")
    times, latents = shifted(torch.linspace(1, 0, steps + 1), shift).to(noise.device), noise.float()
    for now, after in zip(times[:-1], times[1:]):
        latents = latents + (after - now) * predict(latents, now.expand(len(latents))).float()
    return latents
