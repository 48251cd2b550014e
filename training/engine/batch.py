"""What each step trains on, a pure function of the seed and the step.

So a resumed run continues with the same draws without saved generator states, and many processes draw the same global
batch and take their part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.seeds import seeded_generator
from ..diffusion.noise_schedule import TIMESTEPS


@dataclass(frozen=True, eq=False)
class Draw:
    """The random part of one global batch.

    Attributes:
        rows: (B,) which crops, drawn with replacement: batch 8 means 8 with any number of triplets.
        timesteps: (B,) 0 to 999.
        noise: (B, C, h, w) from N(0, 1).
    """

    rows: Tensor
    timesteps: Tensor
    noise: Tensor

    def part(self, start: int, stop: int) -> Draw:
        return Draw(self.rows[start:stop], self.timesteps[start:stop], self.noise[start:stop])

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return what the objective takes beside the crops: timesteps and noise."""
        return self.timesteps.to(device), self.noise.to(device)


def sample_batch(seed: int, step: int, batch_size: int, crops: int, latent: tuple[int, ...]) -> Draw:
    """Return the draw of one step, on the CPU.

    Args:
        seed: of the run.
        step: 0, 1, ...
        batch_size: of the global batch.
        crops: how many there are to choose from.
        latent: (C, h, w).
    """
    generator = seeded_generator(f"{seed}/{step}")
    return Draw(
        torch.randint(crops, (batch_size,), generator=generator),
        torch.randint(TIMESTEPS, (batch_size,), generator=generator),
        torch.randn((batch_size, *latent), generator=generator),
    )


def chances_of(seed: int, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Make the further draws of one step for subject adapters.

    Returns:
        (B,) chances in [0, 1), which decide what a row goes without; (B,) numbers from which views are chosen.
    """
    generator = seeded_generator(f"{seed}/{step}/subjects")
    return torch.rand(batch_size, generator=generator), torch.randint(2**31, (batch_size,), generator=generator)
