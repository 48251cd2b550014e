"""A relation LoRA (DreamRelation arXiv:2410.23280, section 4): attach, loss, export.

    L = mean (prediction - target)^2  +  w_k * KML(z0, concept latents)  +  w_a * predicate attention

KML counts where t <= ``keypoint_max_timestep``, picture by picture. Only the LoRA on to_q, to_k, to_v, to_out of the
text cross-attentions is trained; the identity branch beside them, if there is one, is frozen.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from core.relation.attention_loss import predicate_attention_loss
from core.relation.keypoint_loss import KeypointPairs, keypoint_loss, keypoint_loss_as_released
from core.relation.lora import RelationCard, load_relation, save_relation

from ..common.errors import UserErrors
from ..config import Config
from ..data.encoded_triplets import EncodedTriplets
from ..diffusion.noise_schedule import NoiseSchedule, denoising_loss
from ..host_diffusers import (
    CrossAttentionExtras,
    IdentityBatch,
    PredicateProbe,
    attach_identity,
    attach_relation,
    cross_attentions,
    grid_of,
    read_with_diffusers,
    relation_of,
    unet_layout,
)


class RelationObjective(nn.Module):
    """The losses of a UNet with a relation LoRA.

    Args:
        unet: frozen; gets the LoRA and, with identities, the branch.
        schedule: the base's noise.
        config: of the run.
    """

    def __init__(self, unet: nn.Module, schedule: NoiseSchedule, config: Config) -> None:
        super().__init__()
        self.unet = unet
        self.schedule = schedule
        self.config = config

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss that is on."""
        loss = self.config.loss
        weights = {"denoise": 1.0, "keypoint": loss.keypoint_weight, "attention": loss.attention_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def forward(
        self, batch: EncodedTriplets, identity: IdentityBatch | None, timesteps: Tensor, noise: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of a batch on the UNet's device.

        Args:
            batch: B crops.
            identity: their identity tokens at every site, or None.
            timesteps: (B,) 0 to 999.
            noise: (B, C, h, w).

        Returns:
            ``loss``, the weighted sum, and each loss by name, means over the batch, float32.
        """
        with torch.autocast(device_type=noise.device.type, enabled=False):  # the LoRA computes in its own float32
            noisy = self.schedule.add_noise(batch.latents, noise, timesteps)
            extras = CrossAttentionExtras(identity, self._probe(batch))
            predicted = self._predict(noisy, timesteps, batch, extras)
            losses = self._losses(predicted, noisy, noise, timesteps, batch, extras.predicate)
        means = {name: loss.mean() for name, loss in losses.items()}
        return {"loss": sum(self.weights[name] * mean for name, mean in means.items()), **means}

    def _predict(
        self, noisy: Tensor, timesteps: Tensor, batch: EncodedTriplets, extras: CrossAttentionExtras
    ) -> Tensor:
        dtype = self.unet.dtype
        conditions = {"text_embeds": batch.pooled.to(dtype), "time_ids": batch.time_ids.to(dtype)}
        return self.unet(
            noisy.to(dtype),
            timesteps,
            batch.context.to(dtype),
            added_cond_kwargs=conditions,
            cross_attention_kwargs=extras.kwargs(),
        ).sample

    def _losses(
        self,
        predicted: Tensor,
        noisy: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        batch: EncodedTriplets,
        probe: PredicateProbe | None,
    ) -> dict[str, Tensor]:
        """Compute each loss of each picture, (B,)."""
        settings = self.config.loss
        losses = {"denoise": denoising_loss(predicted, self.schedule.target(batch.latents, noise, timesteps))}
        if settings.min_snr_gamma:
            losses["denoise"] = losses["denoise"] * self.schedule.min_snr_weight(timesteps, settings.min_snr_gamma)
        if "keypoint" in self.weights:
            form = {"paper": keypoint_loss, "as_released": keypoint_loss_as_released}[settings.keypoint_form]
            pairs = KeypointPairs(batch.keypoints_target, batch.keypoints_concepts, batch.visible > 0.5)
            losses["keypoint"] = form(
                self.schedule.clean(noisy, predicted, timesteps),
                batch.concept_latents,
                pairs,
                timesteps <= settings.keypoint_max_timestep,
            )
        if probe is not None:
            probe.open = False
            size = batch.latents.shape[-2:]
            maps = [attention.unflatten(1, grid_of(size, level)) for level, attention in probe.maps]
            losses["attention"] = predicate_attention_loss(maps, batch.region)
        return losses

    def _probe(self, batch: EncodedTriplets) -> PredicateProbe | None:
        if "attention" not in self.weights:
            return None
        most, size = self.config.loss.attention_max_cells, batch.latents.shape[-2:]
        levels = {level for _, _, level in cross_attentions(self.unet)}
        small = frozenset(level for level in levels if math.prod(grid_of(size, level)) <= most)
        return PredicateProbe(batch.span, small)


def attach(unet: nn.Module, schedule: NoiseSchedule, config: Config, with_identity: bool) -> RelationObjective:
    """Put a fresh LoRA (and the identity branch's slots) on a frozen UNet."""
    generator = torch.Generator().manual_seed(config.train.seed)
    attach_relation(unet, config.lora.rank, config.lora.alpha, generator)
    if with_identity or config.loss.attention_weight:
        attach_identity(unet, config.identity.strength)
    if config.train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    return RelationObjective(unet, schedule, config)


def export(objective: RelationObjective, path: Path, card: RelationCard) -> str:
    """Write the file of the contract's section 4; it appears only after our reader and diffusers' have read it.

    Returns:
        What the readers found, one sentence.

    Raises:
        UserErrors: what was read differs from what was trained; nothing was written.
    """
    lora, unet = relation_of(objective.unet, objective.config.lora.alpha), objective.unet
    report: list[str] = []

    def check(written: Path) -> None:
        read = load_relation(written, unet_layout(unet))
        same = read.pairs.keys() == lora.pairs.keys() and all(
            torch.equal(read.pairs[key].delta(), pair.delta()) for key, pair in lora.pairs.items()
        )
        diffusers_pairs = read_with_diffusers(str(written), unet)
        report.append(f"read back: {read.report()}; diffusers reads {diffusers_pairs} of {len(lora.pairs)} pairs")
        if not same or diffusers_pairs != len(lora.pairs):
            raise UserErrors(
                f"{path}: what was read back is not what was trained ({report[0]}). Nothing was written; the "
                "last checkpoint is whole."
            )

    save_relation(path, lora, card, check)
    return report[0]
