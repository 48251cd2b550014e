"""DreamO's losses on the small Flux: velocity, routing and placeholders.

Source: DreamO (arXiv:2504.16915), equations 2 to 5. Where the paper is silent: maps of all blocks, heads averaged,
after norm and rotary positions; targets are the exact share of a token that a creature covers; the placeholder loss
weighs a tenth.
"""

import torch
from torch import Tensor, nn

from core.routing.losses import placeholder_loss, routing_loss, total_loss
from core.routing.routing_map import logit_map
from core.routing.token_layout import TokenLayout

from ...host_diffusers.miniworld.flux import RoutedFlux, attend_plain, sequence_of
from ...host_diffusers.miniworld.flux_text import encode_ids
from .flux_data import FluxBatch

ROUTING_WEIGHT, HOLDER_WEIGHT = 1.0, 0.1


class RoutingLossAttention:
    """Plain attention that counts equations 3 and 4 at every block.

    Args:
        sequence: the layout of the call's tokens.
        batch: targets and places.
        learned: whether gradients flow; else the losses are only reported.
    """

    def __init__(self, sequence: TokenLayout, batch: FluxBatch, learned: bool) -> None:
        self.sequence, self.places, self.learned = sequence, batch.places, learned
        self.maps: list[Tensor] = []
        self.holders: list[Tensor] = []
        lengths = [rows * columns for rows, columns in sequence.references]
        self.owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(batch.places.device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.learned and torch.is_grad_enabled()):
            self.maps.append(logit_map(query, key, self.sequence.layout()))
            if len(self.sequence.references) > 1:  # a single one needs no placeholder
                at = self.places[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
                asking = query[:, :, self.sequence.reference_tokens(0).start :]
                self.holders.append(placeholder_loss(asking, key.gather(2, at), self.owners))
        return attend_plain(query, key, value)


def losses(
    model: RoutedFlux, text_g: nn.Module, batch: FluxBatch, time: Tensor, noise: Tensor, routing: bool
) -> dict[str, Tensor]:
    """Compute equation 5 of one step.

    Args:
        model: on the batch's device.
        text_g: the frozen text encoder.
        batch: scenes with R references, or none.
        time: (B,) in (0, 1); noise: as the latents.
        routing: train on the routing and the placeholder loss too; they are reported in any case.

    Returns:
        Means over the batch: "loss"; "flow", squared error of the velocity; "route" and "holder", 0 where a step has
        none.
    """
    text, pooled = encode_ids(text_g, batch.ids, model.tables["words"])
    share = time.view(-1, 1, 1, 1)
    noisy = (1 - share) * batch.latents + share * noise
    if batch.references is None:
        predicted = model(noisy, time, text, pooled)
    else:
        counted = RoutingLossAttention(sequence_of(text.shape[1], noisy, batch.references), batch, routing)
        predicted = model(noisy, time, text, pooled, batch.references, counted)
    flow = (predicted.float() - (noise - batch.latents)).square().mean(dim=(1, 2, 3))
    route = holder = torch.zeros_like(flow)
    if batch.references is not None:
        route = routing_loss(counted.maps, batch.targets)
        if counted.holders:
            holder = torch.stack(counted.holders).mean(dim=0) * batch.worded
    total = total_loss(flow, route, holder, 1.0, ROUTING_WEIGHT, HOLDER_WEIGHT) if routing else flow
    return {
        name: value.mean() for name, value in (("loss", total), ("flow", flow), ("route", route), ("holder", holder))
    }


def velocity_loss(
    model: RoutedFlux, text_g: nn.Module, batch: FluxBatch, time: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Compute the squared error of the velocity; nothing is recorded in the attention, so it runs fused."""
    text, pooled = encode_ids(text_g, batch.ids, model.tables["words"])
    share = time.view(-1, 1, 1, 1)
    noisy = (1 - share) * batch.latents + share * noise
    predicted = model(noisy, time, text, pooled, batch.references)
    return {"loss": (predicted.float() - (noise - batch.latents)).square().mean()}
