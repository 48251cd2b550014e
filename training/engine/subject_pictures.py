"""Sample pictures of a subject adapter in training: the same seeds by the untouched base and after so many steps.

    eps = eps_U + g (eps_T - eps_I) + g_I (eps_I - eps_U)            (arXiv:2307.11410, as its code samples)

T has prompt, mask and adapters, I the empty prompt, mask and adapters, U the empty prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn

from ..config.subject import SubjectSamplesConfig
from ..data.subject_cache import SubjectBatch
from ..diffusion.ddim import sample, seeded_noise
from ..host_diffusers.images import decode_latents
from .run_dir import RunDir
from .sample_files import SampleSheet
from .subject_objective import Dropped, SubjectObjective


@torch.no_grad()
def draw_subjects(
    objective: SubjectObjective, batch: SubjectBatch, settings: SubjectSamplesConfig, spacing: str = "trailing"
) -> Tensor:
    """Draw latents of B pictures by three-branch guidance.

    Args:
        objective: with the adapter; its UNet is put into evaluation mode and back.
        batch: boxes, references and prompts, on the UNet's device; its latents only say the size.
        settings: steps, guidance, first seed, negative prompt.
        spacing: of the timesteps, see `sampling_timesteps`.
    """
    rows, device = len(batch.latents), batch.latents.device
    noise = seeded_noise([settings.seed + i for i in range(rows)], batch.latents.shape[1:]).to(device)
    off = torch.arange(3 * rows, device=device)
    dropped = Dropped(off >= rows, off >= 2 * rows, off >= 2 * rows)  # T, I, U
    batches = repeated(batch, 3)
    negative = tuple(ids[0] for ids in objective.text.tokens.ids([settings.negative]))
    objective.unet.eval()
    context = objective.encode(batches, dropped.text, negative)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        out = objective.predict(noisy.repeat(3, 1, 1, 1), timesteps.repeat(3), batches, context, dropped)
        text, image, nothing = out.chunk(3)
        return nothing + settings.guidance * (text - image) + settings.subject_guidance * (image - nothing)

    latents = sample(predict, objective.schedule, noise, settings.steps, spacing)
    objective.unet.train()
    return latents


def repeated(batch: SubjectBatch, times: int) -> SubjectBatch:
    """Repeat all rows, one after the other, so many times."""

    def again(value: Tensor) -> Tensor:
        return value.repeat(times, *[1] * (value.ndim - 1))

    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return SubjectBatch(
        **{
            name: tuple(map(again, value)) if isinstance(value, tuple) else again(value)
            for name, value in parts.items()
        }
    )


class SubjectPictures(SampleSheet):
    """Draws the first rows with fixed seeds; an untrained adapter is the base, so it is never switched off.

    Args:
        objective: the UNet with the adapter.
        batch: the rows to draw, on its device.
        prompts, load_vae, folder: see `SampleSheet`.
    """

    title_without = "untrained"

    def __init__(
        self,
        objective: SubjectObjective,
        batch: SubjectBatch,
        prompts: list[str],
        load_vae: Callable[[], nn.Module],
        folder: RunDir,
    ) -> None:
        super().__init__(prompts, load_vae, objective.config, folder)
        self.objective, self.batch = objective, batch

    def _switch(self, enabled: bool) -> None:
        """Do nothing: the base is drawn before a checkpoint is read, with the untrained adapter."""

    def _render(self) -> Tensor:
        latents = draw_subjects(self.objective, self.batch, self.config.samples)
        return decode_latents(self.load_vae().to(latents.device), latents)
