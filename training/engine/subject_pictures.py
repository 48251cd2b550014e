"""Pictures on the way of a subject adapter: the same seeds by the untouched base and after so many steps.

    eps = eps_U + g (eps_T - eps_I) + g_I (eps_I - eps_U)            (arXiv:2307.11410, as its code samples)

T has prompt, mask and adapters, I the empty prompt, mask and adapters, U the empty prompt alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn

from core.user_files import read_json_object

from ..common.atomic_io import write_text
from ..common.sheets import sample_sheet, save_picture, to_picture
from ..config.subject import SubjectSamplesConfig
from ..data.subject_cache import SubjectBatch
from ..diffusion.ddim import sample, seeded_noise
from ..host_diffusers.images import decode_latents
from .run_dir import RunDir
from .sample_files import opened, shown
from .subject_objective import Dropped, SubjectObjective

_WITHOUT, _STEP = "without", re.compile(r"step-(\d{6,})-\d+\.png")
_SETTINGS = "settings.json"


@torch.no_grad()
def draw_subjects(
    objective: SubjectObjective, batch: SubjectBatch, settings: SubjectSamplesConfig, spacing: str = "trailing"
) -> Tensor:
    """Latents of B pictures by three-branch guidance.

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
    whole = repeated(batch, 3)
    instead = tuple(ids[0] for ids in objective.text.tokens.ids([settings.negative]))
    objective.unet.eval()
    context = objective.encode(whole, dropped.text, instead)

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        out = objective.predict(noisy.repeat(3, 1, 1, 1), timesteps.repeat(3), whole, context, dropped)
        text, image, nothing = out.chunk(3)
        return nothing + settings.guidance * (text - image) + settings.subject_guidance * (image - nothing)

    latents = sample(predict, objective.schedule, noise, settings.steps, spacing)
    objective.unet.train()
    return latents


def repeated(batch: SubjectBatch, times: int) -> SubjectBatch:
    """All rows, one after the other, so many times."""

    def again(value: Tensor) -> Tensor:
        return value.repeat(times, *[1] * (value.ndim - 1))

    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return SubjectBatch(
        **{
            name: tuple(map(again, value)) if isinstance(value, tuple) else again(value)
            for name, value in parts.items()
        }
    )


class SubjectPictures:
    """Draws the first rows with fixed seeds.

    Args:
        objective: the UNet with the adapter.
        batch: the rows to draw, on its device.
        prompts: of the rows, for the sheet.
        load_vae: called for every round; the VAE is not kept.
        folder: of the run.
    """

    def __init__(
        self,
        objective: SubjectObjective,
        batch: SubjectBatch,
        prompts: list[str],
        load_vae: Callable[[], nn.Module],
        folder: RunDir,
    ) -> None:
        self.objective, self.batch, self.prompts = objective, batch, prompts
        self.load_vae, self.folder = load_vae, folder
        self.settings: SubjectSamplesConfig = objective.config.samples

    def draw_without(self) -> None:
        """Draw with the untrained adapter, which is the base: before a checkpoint is read."""
        facts = self.settings.model_dump(exclude={"every", "count"})
        if _made_with(self.folder) == facts and all(opened(file) for file in self._files(_WITHOUT)):
            return
        self._draw(_WITHOUT)
        write_text(self.folder.samples / _SETTINGS, json.dumps(facts, indent=1) + "\n")

    def draw(self, step: int) -> None:
        """With the adapter as it is after `step` steps; the sheet grows by a column."""
        self._draw(f"step-{step:06d}")
        found = filter(None, (_STEP.fullmatch(path.name) for path in self.folder.samples.iterdir()))
        steps = sorted({int(match[1]) for match in found if int(match[1]) <= step})
        names = {"untrained": _WITHOUT} | {f"step {done}": f"step-{done:06d}" for done in steps}
        side = min(max(self.objective.config.data.image_px, 256), 384)
        columns = {title: [shown(file, side) for file in self._files(name)] for title, name in names.items()}
        save_picture(sample_sheet(columns, self.prompts), self.folder.path / "samples.png")

    def _files(self, name: str) -> list:
        return [self.folder.samples / f"{name}-{i}.png" for i in range(len(self.prompts))]

    def _draw(self, name: str) -> None:
        latents = draw_subjects(self.objective, self.batch, self.settings)
        vae = self.load_vae().to(latents.device)
        for path, pixels in zip(self._files(name), decode_latents(vae, latents)):
            save_picture(to_picture(pixels), path)


def _made_with(folder: RunDir) -> dict | None:
    """Read the sample settings that the pictures of the untrained adapter were drawn with."""
    try:
        return read_json_object(folder.samples / _SETTINGS)
    except ValueError:
        return None
