"""Pictures of subjects with a base, its identity branch and a relation, as the nodes draw them: prompts, photographs
and boxes in, pixels out. Works for SDXL and for the miniworld."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.identity.image_prep import normalise_pixels, squares
from core.identity.local_tokens import DENSE_SCALE, dense_features, pool
from core.identity.model import SubjectFeatures
from core.relation.lora import load_relation
from core.scene import Box, Layout

from .clipself import encoder_of_transformers
from .frozen import FrozenModels
from .identity import CrossAttentionExtras, attach_identity, identity_batch
from .images import decode_latents, image_tokens, latent_factor
from .relation import merge_relation
from .text import encode_phrases, encode_prompts
from .unet import unet_layout


@dataclass(frozen=True)
class PainterSettings:
    """How pictures are drawn.

    Attributes:
        width, height: pixels.
        steps, guidance: of the sampler.
        sampler: `euler` (EulerDiscrete) or `ddim`, both with the base's own noise schedule.
        strength: of the image branch.
        local_grid: of the local tokens.
        negative: the negative prompt.
    """

    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    strength: float = 0.6
    local_grid: int = 4
    negative: str = ""


def versions() -> dict[str, str]:
    """Versions of the libraries that draw."""
    import diffusers

    return {"diffusers": diffusers.__version__, "torch": torch.__version__}


class Painter:
    """All models of a base, on one device.

    Args:
        frozen: the base, its identity model and its encoders.
        settings: see `PainterSettings`.
        device: torch device.
        dtype: precision of UNet and encoders.
    """

    def __init__(self, frozen: FrozenModels, settings: PainterSettings, device: str, dtype: torch.dtype) -> None:
        self.settings, self.device, self.dtype = settings, torch.device(device), dtype
        base = frozen.base
        self.schedule = base.schedule
        self.unet, self.vae = base.unet(dtype).to(self.device), base.vae().to(self.device)
        self.text = base.text(dtype).to(self.device)
        self.identity = frozen.identity().to(self.device)
        self.vision = frozen.vision("clip_vision", dtype).to(self.device)
        self.local = None
        if "local_clip_vision" in frozen.paths:
            self.local = encoder_of_transformers(frozen.vision("local_clip_vision", dtype).to(self.device))
        attach_identity(self.unet, settings.strength)
        self._layout = unet_layout(self.unet)
        self._relation: Path | None = None
        self._restore = lambda: None

    def set_relation(self, file: Path | None) -> None:
        """Put another relation LoRA into the UNet, or none.

        Raises:
            ValueError: the file does not fit this base.
        """
        if file != self._relation:
            self._restore()
            self._restore, self._relation = (lambda: None), None
            if file is not None:
                self._restore = merge_relation(self.unet, load_relation(file, self._layout))
                self._relation = file

    @torch.no_grad()
    def draw(
        self,
        prompt: str,
        names: Sequence[str],
        photographs: Sequence[Tensor],
        boxes: Sequence[Sequence[float]],
        seed: int,
    ) -> Tensor:
        """Draw one picture.

        Args:
            prompt: the sentence.
            names: each subject's words.
            photographs: one (3, H, W) in [0, 1] for each subject.
            boxes: x0 y0 x1 y1 fractions for each subject.
            seed: of the noise, drawn on the CPU.

        Returns:
            (3, H, W) in [0, 1] on the CPU.
        """
        # 1. the conditions, negative and positive side
        settings = self.settings
        context, pooled = encode_prompts(self.text, [settings.negative, prompt])
        size = settings.height, settings.width
        cells = tuple(side // latent_factor(self.vae) for side in size)
        time_ids = torch.tensor([[*size, 0, 0, *size]] * 2, device=self.device, dtype=self.unet.dtype)
        conditions = {"text_embeds": pooled.to(self.unet.dtype), "time_ids": time_ids}
        extras = CrossAttentionExtras(self._subjects(names, photographs, boxes, cells).absent_before())
        # 2. the sampler's steps, with classifier-free guidance
        scheduler = self._scheduler()
        shape = (1, self.unet.config.in_channels, *cells)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)
        latents = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            noisy = scheduler.scale_model_input(latents, t)
            both = self.unet(
                noisy.repeat(2, 1, 1, 1).to(self.unet.dtype),
                t,
                context.to(self.unet.dtype),
                added_cond_kwargs=conditions,
                cross_attention_kwargs=extras.kwargs(),
            ).sample.float()
            without, with_prompt = both.chunk(2)
            guided = without + settings.guidance * (with_prompt - without)
            latents = scheduler.step(guided, t, latents).prev_sample
        return decode_latents(self.vae, latents)[0]

    def _scheduler(self):
        """Make a sampler with the base's own noise schedule."""
        from diffusers import DDIMScheduler, EulerDiscreteScheduler

        kind = {"euler": EulerDiscreteScheduler, "ddim": DDIMScheduler}[self.settings.sampler]
        prediction_types = {"epsilon": "epsilon", "v": "v_prediction"}
        if self.schedule.prediction not in prediction_types:
            raise ValueError(
                f"a base that predicts '{self.schedule.prediction}' is drawn through ComfyUI; choose --engine comfy"
            )
        alphas = np.array(self.schedule.alphas)
        betas = 1 - alphas / np.concatenate(([1.0], alphas[:-1]))
        extra = {"clip_sample": False, "set_alpha_to_one": False} if self.settings.sampler == "ddim" else {}
        scheduler = kind(
            num_train_timesteps=len(betas),
            trained_betas=betas,
            timestep_spacing="leading",
            steps_offset=1,
            prediction_type=prediction_types[self.schedule.prediction],
            **extra,
        )
        scheduler.set_timesteps(self.settings.steps, device=self.device)
        return scheduler

    def _subjects(
        self,
        names: Sequence[str],
        photographs: Sequence[Tensor],
        boxes: Sequence[Sequence[float]],
        cells: tuple[int, int],
    ):
        """Project the subjects to keys and values at every cross-attention."""
        tokens = tuple(self._tokens(photograph) for photograph in photographs)
        features = SubjectFeatures(tokens, encode_phrases(self.text, list(names)).float())
        layout = Layout(tuple(Box(*map(float, box)) for box in boxes))
        weights = torch.ones(len(names))
        identity_tokens = self.identity.extract(features, layout, weights.to(self.device)).subjects
        tensor = layout.tensor().to(self.device)
        return identity_batch(
            self.identity.ms_adapter,
            identity_tokens[None],
            self.identity.dummy_image_tokens[0],
            tensor[None],
            weights[None].to(self.device),
            cells,
            self.unet,
        )

    def _tokens(self, photograph: Tensor) -> Tensor:
        """Encode a photograph to (L, W) image tokens, and its local tokens after them if there is an encoder."""
        size = self.vision.config.image_size
        tokens = image_tokens(self.vision, normalise_pixels(squares(photograph[None], None, size)))[0].float()
        if self.local is None:
            return tokens
        pixels = normalise_pixels(squares(photograph[None], None, DENSE_SCALE * self.local.image_size))
        dense = dense_features(self.local.tower, pixels.to(self.device, self.dtype))
        return torch.cat((tokens, pool(dense, self.settings.local_grid)[0].float()))
