"""Sample pictures in training: the same seeds without and with the LoRA, in one growing contact sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from ..common.image_files import open_image
from ..config import Config
from ..data.encoded_triplets import EncodedTriplets
from ..diffusion.ddim import sample, seeded_noise
from ..host_diffusers import CrossAttentionExtras, IdentityBatch, set_relation
from ..host_diffusers.images import decode_latents
from .objective import RelationObjective
from .run_dir import RunDir
from .run_spec import RunSpec
from .sample_files import SampleSheet, opened

_THUMBNAIL = 256  # pixels a side


class SamplePictures(SampleSheet):
    """Draws the first triplets' prompts with fixed seeds.

    Args:
        objective: the UNet with the LoRA.
        crops, identity: of the pictures to draw, on the UNet's device.
        negative: context (1, 77, D) and pooled (1, P) of the negative prompt.
        prompts, load_vae, config, folder: see `SampleSheet`.
    """

    def __init__(
        self,
        objective: RelationObjective,
        crops: EncodedTriplets,
        identity: IdentityBatch | None,
        prompts: list[str],
        negative: tuple[Tensor, Tensor],
        load_vae: Callable[[], nn.Module],
        config: Config,
        folder: RunDir,
    ) -> None:
        super().__init__(prompts, load_vae, config, folder)
        self.objective, self.crops = objective, crops
        self.identity = identity.absent_before() if identity else None
        self.negative = tuple(part.to(crops.context) for part in negative)

    def thumbnail(self, step: int) -> str:
        """Return the first picture of a step as a data URI, for LoRA managers; drawn again if it is gone."""
        file = self._files(f"step-{step:06d}")[0]
        if opened(file) is None:
            self._draw(f"step-{step:06d}")
        small = open_image(file).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, format="JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

    def _switch(self, enabled: bool) -> None:
        set_relation(self.objective.unet, enabled)

    def _render(self) -> Tensor:
        settings = self.config.samples
        crops, unet = self.crops, self.objective.unet
        noise = seeded_noise([settings.seed + i for i in range(len(crops))], crops.latents.shape[1:])
        context, pooled = (
            torch.cat((negative.expand_as(own), own)).to(unet.dtype)
            for negative, own in zip(self.negative, (crops.context, crops.pooled))
        )
        conditions = {"text_embeds": pooled, "time_ids": crops.time_ids.repeat(2, 1).to(unet.dtype)}
        extras = CrossAttentionExtras(self.identity)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            both = unet(
                noisy.repeat(2, 1, 1, 1).to(unet.dtype),
                timesteps.repeat(2),
                context,
                added_cond_kwargs=conditions,
                cross_attention_kwargs=extras.kwargs(),
            ).sample.float()
            without, with_prompt = both.chunk(2)
            return without + settings.guidance * (with_prompt - without)

        unet.eval()
        latents = sample(predict, self.objective.schedule, noise.to(crops.latents.device), settings.steps)
        unet.train()
        vae = self.load_vae().to(latents.device)
        return decode_latents(vae, latents)


def sample_pictures(
    spec: RunSpec,
    objective: RelationObjective,
    crops: EncodedTriplets,
    identity: IdentityBatch | None,
    negative: tuple[Tensor, Tensor] | None,
) -> SamplePictures | None:
    """Take the middle crops of a run's first triplets, and draw them without the LoRA at once.

    Args:
        crops: all of them, on the CPU.
        identity: of all crops, on the CPU.
        negative: encoded; None where no pictures are to be drawn, and none are.
    """
    config = spec.config
    if negative is None:
        return None
    rows, device = torch.arange(0, len(spec.triplets) * config.data.crops, config.data.crops), objective.unet.device
    rows = rows[: config.samples.count]
    samples = SamplePictures(
        objective,
        crops.take(rows).to(device),
        identity.take(rows).to(device) if identity else None,
        [triplet.prompt for triplet in spec.triplets[: len(rows)]],
        negative,
        spec.frozen.base.vae,
        config,
        spec.folder,
    )
    samples.draw_without()
    return samples
