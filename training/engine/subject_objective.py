"""A subject adapter (Subject-Diffusion, arXiv:2307.11410): attach, loss, export.

    L = mean (prediction - target)^2  +  w_a * localisation of the words

Trained are the gated adapters, the MLPs of object tokens and of words, keys and values of the text cross-attentions
beside the adapters, the input convolution with the mask's channel, and, if asked, the text encoder. Where the released
code keeps the adapters in every sample and leaves them out in guidance's third branch (SD-B1), `drop.everything` trains
that branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.subject.files import SubjectAdapter
from core.subject.location import location_mask
from core.subject.losses import localisation_loss
from core.subject.reference import null_boxes

from ..config.subject import SubjectConfig
from ..data.subject_cache import SubjectBatch
from ..diffusion.noise_schedule import NoiseSchedule, denoising_loss
from ..host_diffusers import CrossAttentionExtras
from ..host_diffusers.fused_text import FusedText, trained_text
from ..host_diffusers.subject import object_arguments, trained_in_base
from ..host_diffusers.word_probe import WordProbe, sites_of

FACTOR = 8  # pixels of a latent's cell


@dataclass(frozen=True, eq=False)
class Dropped:
    """What each of B rows goes without, (B,) bool each."""

    text: Tensor
    location: Tensor
    adapters: Tensor

    @classmethod
    def of_chances(cls, chances: Tensor, config: SubjectConfig) -> Dropped:
        """Decide by one number in [0, 1) per row, as published: text, text and mask, mask, then everything."""
        drop = config.drop
        ends = torch.tensor([drop.text, drop.text_and_location, drop.location, drop.everything]).cumsum(0)
        kind = (chances[:, None] >= ends.to(chances)).sum(dim=1)  # 0 to 3, or 4: nothing is dropped
        everything = kind == 3
        return cls((kind <= 1) | everything, (kind == 1) | (kind == 2) | everything, everything)

    @classmethod
    def nothing(cls, rows: int, device: torch.device) -> Dropped:
        """Drop nothing from any row."""
        return cls(*(torch.zeros(rows, dtype=torch.bool, device=device) for _ in range(3)))


class SubjectObjective(nn.Module):
    """The losses of a UNet with a subject adapter, and of its text encoders.

    Args:
        unet: with the adapter attached.
        adapter: on it.
        text: the base's encoders.
        schedule: the base's noise.
        config: of the run.
        dtype: of the frozen parts; what is trained is float32.
    """

    def __init__(
        self,
        unet: nn.Module,
        adapter: SubjectAdapter,
        text: FusedText,
        schedule: NoiseSchedule,
        config: SubjectConfig,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.unet, self.adapter, self.text = unet, adapter, text
        self.schedule, self.config, self.dtype = schedule, config, dtype
        self.empty = tuple(ids[0] for ids in text.tokens.ids([""]))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss that is on."""
        weights = {"denoise": 1.0, "attention": self.config.loss.attention_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def forward(self, batch: SubjectBatch, timesteps: Tensor, noise: Tensor, chances: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: B rows on the UNet's device.
            timesteps: (B,) 0 to 999.
            noise: (B, C, h, w).
            chances: (B,) in [0, 1), which decide what is dropped.

        Returns:
            ``loss``, the weighted sum, and each loss by name, means over the batch, float32.
        """
        dropped = Dropped.of_chances(chances, self.config)
        noisy = self.schedule.add_noise(batch.latents, noise, timesteps)
        probe = self._probe(batch) if "attention" in self.weights else None
        context = self.encode(batch, dropped.text)
        predicted = self.predict(noisy, timesteps, batch, context, dropped, probe)
        errors = denoising_loss(predicted, self.schedule.target(batch.latents, noise, timesteps))
        if self.config.loss.min_snr_gamma:
            errors = errors * self.schedule.min_snr_weight(timesteps, self.config.loss.min_snr_gamma)
        losses = {"denoise": errors.mean()}
        if probe is not None:
            probe.open = False
            losses["attention"] = self._localisation(probe, batch, dropped)
        return {"loss": sum(self.weights[name] * loss for name, loss in losses.items()), **losses}

    def encode(
        self, batch: SubjectBatch, without: Tensor, instead: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Encode B prompts to context and pooled embedding; rows `without` read `instead`, or the empty prompt."""
        ids = [
            torch.where(without[:, None], empty.to(own.device), own)
            for own, empty in zip(batch.ids, instead or self.empty)
        ]
        words: list[list[Tensor]] = []
        with self._precision():
            if self.config.adapter.fused_words:
                for vectors in self.adapter.words(batch.embeddings):  # (B, S, W)
                    words.append([row[visible] for row, visible in zip(vectors, batch.present & ~without[:, None])])
            return self.text(ids, words)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        batch: SubjectBatch,
        context: tuple[Tensor, Tensor | None],
        dropped: Dropped,
        probe: WordProbe | None = None,
    ) -> Tensor:
        """Predict from B noisy latents."""
        settings, (states, pooled) = self.config.adapter, context
        inputs = noisy
        if settings.location:
            inputs = torch.cat((noisy, self._mask(batch, dropped.location, tuple(noisy.shape[-2:]))), dim=1)
        kwargs = CrossAttentionExtras(predicate=probe).kwargs() if probe is not None else {}
        if settings.adapter:
            boxes = null_boxes(batch.boxes, settings.coordinates)
            kwargs["gligen"] = object_arguments(
                batch.patches, boxes, batch.present, settings.locate_single, ~dropped.adapters
            )
        conditions = None if pooled is None else {"text_embeds": pooled, "time_ids": batch.time_ids}
        with self._precision():
            return self.unet(
                inputs, timesteps, states, added_cond_kwargs=conditions, cross_attention_kwargs=kwargs or None
            ).sample.float()

    def _precision(self):
        """Half precision where the frozen parts are; what is trained stays float32 and is cast in each operation."""
        device = next(self.adapter.parameters()).device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)

    def _mask(self, batch: SubjectBatch, without: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = (side * FACTOR for side in size)
        mask = location_mask(batch.boxes, batch.present, height, width, size)
        return torch.where(without[:, None, None, None], 0.0, mask)

    def _words(self, batch: SubjectBatch) -> Tensor:
        """Return (B, K) positions of placeholders and labels; of labels alone where words are not fused."""
        if self.config.adapter.fused_words:
            return torch.cat((batch.placeholders, batch.labels), dim=1)
        return batch.labels

    def _probe(self, batch: SubjectBatch) -> WordProbe:
        blocks, most = self.adapter.config.blocks, self.config.loss.attention_max_cells
        sites = sites_of(self.unet, blocks, tuple(batch.latents.shape[-2:]), most)
        return WordProbe(self._words(batch).clamp(min=0), sites)

    def _localisation(self, probe: WordProbe, batch: SubjectBatch, dropped: Dropped) -> Tensor:
        words = self._words(batch)
        repeats = words.shape[1] // batch.present.shape[1]
        present = batch.present.repeat(1, repeats) & (words >= 0) & ~dropped.text[:, None]
        index = torch.arange(words.shape[1], device=words.device).expand_as(words)  # the probe's maps are of these
        areas = batch.segmentations.repeat(1, repeats, 1, 1)
        return localisation_loss(probe.maps, areas, index, present, self.config.loss.attention_form)

    def trained(self) -> dict[str, nn.Parameter]:
        """List what is trained, by the file's keys."""
        settings, keys = self.config.adapter, self.adapter.file_keys()
        own = {keys[name]: parameter for name, parameter in self.adapter.named_parameters()}
        if not settings.adapter:
            own = {key: value for key, value in own.items() if key.startswith("mlp")}
        if not settings.fused_words:
            own = {key: value for key, value in own.items() if not key.startswith("mlp")}
        return own | trained_in_base(self.unet, self.adapter.config) | trained_text(self.text, settings.text_encoder)
