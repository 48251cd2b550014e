"""Noise, the network's target, and the clean latents a prediction implies, for the three kinds of prediction.

    epsilon   x_t = sqrt(a) x_0 + sqrt(1 - a) e        target e                               (DDPM arXiv:2006.11239)
    v         the same x_t                             target sqrt(a) e - sqrt(1 - a) x_0     (arXiv:2202.00512)
    flow      x_t = (1 - s) x_0 + s e                  target e - x_0                         (arXiv:2403.03206)

with a the cumulative product of 1 - beta and s = t / 1000. Optional weight min(SNR, gamma) / SNR, for v over SNR + 1
(min-SNR, arXiv:2303.09556).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.shapes import check_shape

PREDICTIONS = ("epsilon", "v", "flow")
TIMESTEPS = 1000


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise there is at each of the 1000 timesteps.

    Attributes:
        prediction: epsilon, v or flow.
        alphas: cumulative products of 1 - beta, one per timestep, falling; unused for flow.
    """

    prediction: str
    alphas: tuple[float, ...] = ()

    @classmethod
    def of_betas(
        cls, prediction: str, start: float = 0.00085, end: float = 0.012, spacing: str = "scaled_linear"
    ) -> NoiseSchedule:
        """Return the usual schedules; the defaults are SDXL's. ``scaled_linear`` is linear in sqrt(beta).

        Raises:
            ValueError: another prediction or spacing.
        """
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction: expected one of {', '.join(PREDICTIONS)}, got '{prediction}'.")
        if spacing == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        elif spacing == "linear":
            betas = torch.linspace(start, end, TIMESTEPS, dtype=torch.float64)
        else:
            raise ValueError(f"noise schedule: expected scaled_linear or linear, got '{spacing}'.")
        return cls(prediction, tuple((1 - betas).cumprod(0).tolist()))

    def signal(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of clean latents and of noise at (B,) timesteps, each (B, 1, 1, 1) float32."""
        check_shape(timesteps, "B", "timesteps")
        if self.prediction == "flow":
            noise = timesteps.float() / TIMESTEPS
            clean = 1 - noise
        else:
            alphas = torch.tensor(self.alphas, device=timesteps.device)[timesteps.long()]
            clean, noise = alphas.sqrt(), (1 - alphas).sqrt()
        return clean.view(-1, 1, 1, 1), noise.view(-1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mix (B, C, H, W) clean latents and noise to x_t."""
        clean_factor, noise_factor = self.signal(timesteps)
        return clean_factor * latents + noise_factor * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Compute the regression target of the prediction type."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "flow":
            return noise - latents
        clean_factor, noise_factor = self.signal(timesteps)
        return clean_factor * noise - noise_factor * latents

    def clean(self, noisy: Tensor, predicted: Tensor, timesteps: Tensor) -> Tensor:
        """Return the clean latents that a prediction implies, float32."""
        clean_factor, noise_factor = self.signal(timesteps)
        noisy, predicted = noisy.float(), predicted.float()
        if self.prediction == "epsilon":
            return (noisy - noise_factor * predicted) / clean_factor
        if self.prediction == "flow":
            return noisy - noise_factor * predicted
        return clean_factor * noisy - noise_factor * predicted

    def noise(self, noisy: Tensor, predicted: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        """Return the noise that a prediction implies, float32; ``clean`` are the clean latents that it implies."""
        if self.prediction == "epsilon":
            return predicted.float()
        clean_factor, noise_factor = self.signal(timesteps)
        return (noisy.float() - clean_factor * clean) / noise_factor

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Return the (B,) weight of each picture's denoising loss."""
        clean_factor, noise_factor = self.signal(timesteps)
        snr = (clean_factor / noise_factor).square().flatten()
        return snr.clamp(max=gamma) / (snr + 1 if self.prediction == "v" else snr)


def denoising_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute each picture's mean squared error, (B,) float32."""
    check_shape(predicted, "B C H W", "prediction")
    return (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
