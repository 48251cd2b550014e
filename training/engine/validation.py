"""Pictures on the way: the same seeds without and with the LoRA, in one growing contact sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from ..common.sheets import sample_sheet, save_picture, to_picture
from ..config import Config
from ..data.encoding_cache import Encoded
from ..diffusion.ddim import sample, seeded_noise
from ..host_diffusers import CrossAttentionExtras, IdentityBatch, set_relation
from ..host_diffusers.images import decode_latents
from .objective import RelationObjective
from .run_dir import RunFolder
from .run_spec import Recipe

_WITHOUT = "without"
_THUMBNAIL = 256


class SamplePictures:
    """Draws the first triplets' prompts with fixed seeds.

    Args:
        objective: the UNet with the LoRA.
        crops, identity: of the pictures to draw, on the UNet's device.
        negative: context (1, 77, D) and pooled (1, P) of the negative prompt.
        load_vae: called for every round; the VAE is not kept.
    """

    def __init__(self, objective: RelationObjective, crops: Encoded, identity: IdentityBatch | None, prompts: list[str],
                 negative: tuple[Tensor, Tensor], load_vae: Callable[[], nn.Module], config: Config, folder: RunFolder
                 ) -> None:
        self.objective, self.crops, self.prompts = objective, crops, prompts
        self.identity = identity.absent_before() if identity else None
        self.negative = tuple(part.to(crops.context) for part in negative)
        self.load_vae, self.config, self.folder = load_vae, config, folder

    def draw_without(self) -> None:
        """The untouched base, once."""
        if not self._files(_WITHOUT)[-1].exists():
            set_relation(self.objective.unet, False)
            try:
                self._draw(_WITHOUT)
            finally:
                set_relation(self.objective.unet, True)

    def draw(self, step: int) -> None:
        """With the LoRA as it is after ``step`` steps; the sheet grows by a column."""
        self._draw(f"step-{step:06d}")
        names = [_WITHOUT, *sorted({path.stem.rsplit("-", 1)[0] for path in self.folder.samples.glob("step-*.png")})]
        names = [name for name in names if name == _WITHOUT or int(name.split("-")[1]) <= step]
        titles = {name: "without LoRA" if name == _WITHOUT else f"step {int(name.split('-')[1])}" for name in names}
        columns = {titles[name]: [_shown(path) for path in self._files(name)] for name in names}
        save_picture(sample_sheet(columns, self.prompts), self.folder.path / "samples.png")

    def thumbnail(self, step: int) -> str:
        """The first picture of a step as a data URI, for LoRA managers."""
        with Image.open(self._files(f"step-{step:06d}")[0]) as picture:
            small = picture.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        small.save(data, format="JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()

    def _files(self, name: str):
        return [self.folder.samples / f"{name}-{i}.png" for i in range(len(self.crops))]

    def _draw(self, name: str) -> None:
        settings = self.config.samples
        crops, unet = self.crops, self.objective.unet
        noise = seeded_noise([settings.seed + i for i in range(len(crops))], crops.latents.shape[1:])
        context, pooled = (torch.cat((negative.expand_as(own), own)).to(unet.dtype)
                           for negative, own in zip(self.negative, (crops.context, crops.pooled)))
        conditions = {"text_embeds": pooled, "time_ids": crops.time_ids.repeat(2, 1).to(unet.dtype)}
        extras = CrossAttentionExtras(self.identity)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            both = unet(noisy.repeat(2, 1, 1, 1).to(unet.dtype), timesteps.repeat(2), context,
                        added_cond_kwargs=conditions, cross_attention_kwargs=extras.kwargs()).sample.float()
            without, with_prompt = both.chunk(2)
            return without + settings.guidance * (with_prompt - without)

        unet.eval()
        latents = sample(predict, self.objective.schedule, noise.to(crops.latents.device), settings.steps)
        unet.train()
        vae = self.load_vae().to(latents.device)
        for path, pixels in zip(self._files(name), decode_latents(vae, latents)):
            save_picture(to_picture(pixels), path)


def sample_pictures(recipe: Recipe, objective: RelationObjective, crops: Encoded, identity: IdentityBatch | None,
                    negative: tuple[Tensor, Tensor] | None) -> SamplePictures | None:
    """For a run: the middle crops of its first triplets, drawn without the LoRA at once; None if it wants none.

    Args:
        crops, identity: of all crops, on the UNet's device.
        negative: encoded; None where no pictures are wanted.
    """
    config = recipe.config
    if negative is None:
        return None
    rows = torch.arange(0, len(crops), config.data.crops)[:config.samples.count].to(crops.latents.device)
    samples = SamplePictures(objective, crops.take(rows), identity.take(rows) if identity else None,
                             [triplet.prompt for triplet in recipe.triplets[:len(rows)]], negative,
                             recipe.frozen.base.vae, config, recipe.folder)
    samples.draw_without()
    return samples


def _shown(path) -> Image.Image:
    """Large enough to look at, small enough for a sheet."""
    with Image.open(path) as picture:
        side = min(max(picture.width, 256), 384)
        return picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
