"""A relation LoRA on a Flux-class model: its loss.

    L = w(t) mean (v - (e - x_0))^2  +  w_k KML(x_0 predicted, concept latents) / C  +  w_a predicate attention
        + w_r routing  +  w_h placeholders

KML (DreamRelation arXiv:2410.23280, section 4.2) counts between two flow times, picture by picture, and is divided by
the channels of a latent cell, so that one weight means the same on every VAE. Routing and placeholder losses are
DreamO's (arXiv:2504.16915, equations 3 and 4). References stand in the sequence; pictures of a batch that have
different numbers of them are computed in groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from core.relation.attention_loss import predicate_attention_loss
from core.relation.keypoint_loss import KeypointPairs, keypoint_loss
from core.routing.losses import routing_loss

from ...config import FluxConfig
from ...data.encoded_flux import NAMED, PLAIN, EncodedFlux
from ...diffusion.flow import add_noise, clean_of, loss_weight
from ...host_diffusers.flux.attention import hook_attention
from ...host_diffusers.flux.network import FluxNetwork
from ...host_diffusers.images import latent_cells
from .batch import FluxDraw
from .recorder import LossAttention
from .stages import loss_names


class FluxObjective(nn.Module):
    """The losses of a network with a relation LoRA.

    Args:
        network: frozen but for the LoRA (and DreamO's tables, if they are trained).
        config: of the run.
    """

    def __init__(self, network: FluxNetwork, config: FluxConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.names = loss_names(config)
        self.recorded = tuple(name for name in ("attention", "routing", "placeholder") if name in self.names)
        self.blocks = hook_attention(network.transformer) if self.recorded else 0

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss that is on; 1 for those that only a stage turns on."""
        loss = self.config.loss
        weights = {"denoise": 1.0, "keypoint": loss.keypoint_weight, "attention": loss.attention_weight}
        weights |= {"routing": loss.routing_weight, "placeholder": loss.placeholder_weight}
        return {name: weights[name] or 1.0 for name in self.names}

    def forward(self, batch: EncodedFlux, identity: None, draw: FluxDraw) -> dict[str, Tensor]:
        """Compute the losses of a batch on the network's device.

        Args:
            batch: B crops.
            identity: None; a Flux has its references in the sequence.
            draw: their times, noise and choices.

        Returns:
            ``loss``, the weighted sum, and each loss by name, means over the batch, float32.
        """
        with torch.autocast(device_type=draw.noise.device.type, enabled=False):  # the LoRA computes in its own float32
            times = self.network.representable(draw.times)
            noisy = add_noise(batch.latents, draw.noise, times)
            predicted, recorded = self._predict(batch, draw, noisy)
            losses = self._losses(batch, draw, noisy, times, predicted) | recorded
        means = {name: losses[name].mean() for name in self.names}
        # trained tables take part where no picture has references too: several processes wait for each gradient
        untouched = sum((0.0 * table.sum() for table in self.network.tables.values() if table.requires_grad), 0.0)
        return {"loss": sum(draw.stage.weights[name] * mean for name, mean in means.items()) + untouched, **means}

    def _predict(self, batch: EncodedFlux, draw: FluxDraw, noisy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the velocity (B, C, h, w), and read the losses on attention, (B,) each; group by group."""
        predictions, order = [], []
        recorded = {name: [] for name in self.recorded}
        for rows, count in groups(batch, draw):
            # 1. the prompts, as written or with the references named; empty where the words are dropped
            group = batch.take(rows)
            choice = torch.where(draw.named[rows], NAMED, PLAIN)
            index = torch.arange(len(rows), device=rows.device)
            context, pooled = group.context[index, choice], group.pooled[index, choice]
            silent = draw.silent[rows]
            context = torch.where(silent[:, None, None], batch.empty_context.to(context), context)
            pooled = torch.where(silent[:, None], batch.empty_pooled.to(pooled), pooled)
            # 2. one call, with the attention that the losses read
            dropped = count and draw.token_mask.shape[-1]
            token_mask = draw.token_mask[int(rows[0]), :count].flatten() if dropped else None
            attend = self._attend(group, choice, draw, rows, count, token_mask, context.shape[1])
            predictions.append(
                self.network(
                    noisy[rows],
                    draw.times[rows],
                    context,
                    pooled,
                    [group.references[:, slot] for slot in range(count)],
                    self.config.flow.guidance,
                    attend,
                    None if token_mask is None else token_mask.nonzero()[:, 0],
                )
            )
            # 3. what was read of it
            order.append(rows)
            for name, values in self._read(attend, group, count, len(rows)).items():
                recorded[name].append(values)
        back = torch.cat(order).argsort()  # to the order of the batch
        return torch.cat(predictions)[back], {name: torch.cat(values)[back] for name, values in recorded.items()}

    def _attend(
        self,
        group: EncodedFlux,
        choice: Tensor,
        draw: FluxDraw,
        rows: Tensor,
        count: int,
        token_mask: Tensor | None,
        text: int,
    ) -> LossAttention | None:
        """Make what reads the attention of one group's call."""
        active = {name for name in self.recorded if draw.stage.weights[name]}
        active -= set() if count else {"routing"}
        active -= set() if count > 1 else {"placeholder"}  # a single reference has nothing to be told from
        if not self.recorded:
            return None
        tokens = group.references.shape[-1] * group.references.shape[-2] // self.network.patch**2
        lengths = [tokens] * count if token_mask is None else token_mask.view(count, -1).sum(dim=1).tolist()
        index = torch.arange(len(rows), device=rows.device)
        span = group.span[index, choice] * ~draw.silent[rows, None]
        has_placeholders = draw.named[rows] & ~draw.silent[rows] & (group.places[:, :count] > 0).all(dim=1)
        return LossAttention(
            self.blocks,
            self.network.layout(text, self.network.grid(draw.noise), lengths),
            span if "attention" in active else None,
            group.places[:, :count] if "placeholder" in active else None,
            has_placeholders,
            "routing" in active,
        )

    def _read(self, attend: LossAttention | None, group: EncodedFlux, count: int, rows: int) -> dict[str, Tensor]:
        """Turn what was read of a group's attention into losses, (rows,) each; 0 where there was nothing to read."""
        if attend is None:
            return {}
        zeros = group.latents.new_zeros(rows)
        losses = dict.fromkeys(self.recorded, zeros)
        if attend.maps:
            losses["routing"] = routing_loss(attend.maps, group.shares[:, :count])
        if attend.holders:
            losses["placeholder"] = torch.stack(attend.holders).mean(dim=0)
        if attend.predicates:
            losses["attention"] = predicate_attention_loss(attend.predicates, group.region)
        return losses

    def _losses(
        self, batch: EncodedFlux, draw: FluxDraw, noisy: Tensor, times: Tensor, predicted: Tensor
    ) -> dict[str, Tensor]:
        """Compute each loss of each picture that the prediction alone decides, (B,)."""
        flow, loss = self.config.flow, self.config.loss
        errors = (predicted.float() - (draw.noise - batch.latents)).square().mean(dim=(1, 2, 3))
        losses = {"denoise": loss_weight(times, flow.weighting, flow.gamma) * errors}
        if "keypoint" in self.names:
            clean, concepts = clean_of(noisy, predicted, times), batch.concept_latents
            if self.network.axes == 4:  # Flux.2's latents are patches; a joint is in one of their cells
                clean, concepts = latent_cells(clean), latent_cells(concepts.flatten(0, 1))
                concepts = concepts.unflatten(0, batch.concept_latents.shape[:2])
            pairs = KeypointPairs(batch.keypoints_target, batch.keypoints_concepts, batch.visible > 0.5)
            gate = (times >= loss.keypoint_min_time) & (times <= loss.keypoint_max_time)
            losses["keypoint"] = keypoint_loss(clean, concepts, pairs, gate) / clean.shape[1]
        return losses


def groups(batch: EncodedFlux, draw: FluxDraw) -> Iterator[tuple[Tensor, int]]:
    """Yield (rows, references) of pictures that one call can take: as many references, the same tokens of them."""
    counts = (batch.present.sum(dim=1).long() * ~draw.alone).tolist()
    device = batch.latents.device
    if draw.token_mask.shape[-1]:  # each picture keeps other tokens
        yield from ((torch.tensor([row], device=device), count) for row, count in enumerate(counts))
        return
    for count in sorted(set(counts)):
        yield torch.tensor([row for row, each in enumerate(counts) if each == count], device=device), count
