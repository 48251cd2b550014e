"""Pictures on the way: the same seeds without and with the LoRA, in one growing contact sheet."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from core.user_files import read_json_object

from ..common.atomic_io import write_text
from ..common.image_files import open_image
from ..common.sheets import sample_sheet, save_picture, to_picture
from ..config import Config
from ..data.encoded_triplets import EncodedTriplets
from ..diffusion.ddim import sample, seeded_noise
from ..host_diffusers import CrossAttentionExtras, IdentityBatch, set_relation
from ..host_diffusers.images import decode_latents
from .objective import RelationObjective
from .run_dir import RunDir
from .run_spec import RunSpec
from .sample_files import opened, shown

_WITHOUT, _STEP = "without", re.compile(r"step-(\d{6,})-\d+\.png")
_SETTINGS = "settings.json"  # what the pictures without LoRA were drawn with
_THUMBNAIL = 256  # pixels a side


class SamplePictures:
    """Draws the first triplets' prompts with fixed seeds.

    Args:
        objective: the UNet with the LoRA.
        crops, identity: of the pictures to draw, on the UNet's device.
        negative: context (1, 77, D) and pooled (1, P) of the negative prompt.
        load_vae: called for every round; the VAE is not kept.
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
        self.objective, self.crops, self.prompts = objective, crops, prompts
        self.identity = identity.absent_before() if identity else None
        self.negative = tuple(part.to(crops.context) for part in negative)
        self.load_vae, self.config, self.folder = load_vae, config, folder

    def draw_without(self) -> None:
        """Draw the untouched base once, and again where one of its pictures is gone, broken or made otherwise."""
        facts = self.config.samples.model_dump(exclude={"every", "count"})
        made = _made_with(self.folder.samples / _SETTINGS) == facts
        if made and all(opened(file) for file in self._files(_WITHOUT)):
            return
        self._switch(False)
        try:
            self._draw(_WITHOUT)
        finally:
            self._switch(True)
        write_text(self.folder.samples / _SETTINGS, json.dumps(facts, indent=1) + "\n")

    def draw(self, step: int) -> None:
        """With the LoRA as it is after ``step`` steps; the sheet grows by a column.

        The sheet shows what is there of earlier steps: a run may have gone on with other sample settings, and people
        delete pictures.
        """
        self._draw(f"step-{step:06d}")
        found = filter(None, (_STEP.fullmatch(path.name) for path in self.folder.samples.iterdir()))
        steps = sorted({int(match[1]) for match in found if int(match[1]) <= step})
        names = {"without LoRA": _WITHOUT} | {f"step {done}": f"step-{done:06d}" for done in steps}
        side = min(max(self.config.data.image_px, 256), 384)  # large enough to look at, small enough for a sheet
        columns = {title: [shown(file, side) for file in self._files(name)] for title, name in names.items()}
        save_picture(sample_sheet(columns, self.prompts), self.folder.path / "samples.png")

    def thumbnail(self, step: int) -> str:
        """Return the first picture of a step as a data URI, for LoRA managers; drawn again if it is gone."""
        file = self._files(f"step-{step:06d}")[0]
        if opened(file) is None:
            self._draw(f"step-{step:06d}")
        small = open_image(file).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, format="JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

    def _files(self, name: str) -> list[Path]:
        return [self.folder.samples / f"{name}-{i}.png" for i in range(len(self.crops))]

    def _draw(self, name: str) -> None:
        for path, pixels in zip(self._files(name), self._render()):
            save_picture(to_picture(pixels), path)

    def _switch(self, enabled: bool) -> None:
        """Turn the LoRA on or off."""
        set_relation(self.objective.unet, enabled)

    def _render(self) -> Tensor:
        """Draw every picture as the model is now, (N, 3, H, W) in [0, 1]."""
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
    recipe: RunSpec,
    objective: RelationObjective,
    crops: EncodedTriplets,
    identity: IdentityBatch | None,
    negative: tuple[Tensor, Tensor] | None,
) -> SamplePictures | None:
    """For a run: the middle crops of its first triplets, drawn without the LoRA at once; None if it wants none.

    Args:
        crops: all of them, on the CPU.
        identity: of all crops, on the UNet's device.
        negative: encoded; None where no pictures are wanted.
    """
    config = recipe.config
    if negative is None:
        return None
    rows, device = torch.arange(0, len(crops), config.data.crops)[: config.samples.count], objective.unet.device
    samples = SamplePictures(
        objective,
        crops.take(rows).to(device),
        identity.take(rows.to(device)) if identity else None,
        [triplet.prompt for triplet in recipe.triplets[: len(rows)]],
        negative,
        recipe.frozen.base.vae,
        config,
        recipe.folder,
    )
    samples.draw_without()
    return samples


def _made_with(file: Path) -> dict | None:
    """Return the sample settings that the pictures without LoRA were drawn with."""
    try:
        return read_json_object(file)
    except ValueError:
        return None
