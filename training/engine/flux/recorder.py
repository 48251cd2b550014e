"""Losses on attention without its matrix, read while the blocks compute.

Under gradient checkpointing every block runs twice; what it gives out the second time is not kept, else each block
would count twice. All three are products with means over tokens: DreamO's maps (equation 2), the placeholder loss
(equation 4), and where the predicate looks,

    A = N softmax over the picture's N tokens of  mean over heads  q_n . k_predicate / sqrt(d)

k_predicate the mean of the predicate's keys; 1 is what each token has on average. SDXL's attention loss reads the
softmax over the words instead, which needs the matrix.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from core.routing.call_layout import CallLayout
from core.routing.losses import placeholder_loss
from core.routing.routing_map import logit_map

from ...host_diffusers.flux.attention import attend_plain


class LossAttention:
    """Plain attention that leaves what the losses need.

    Args:
        blocks: of the network; each list gets as many entries.
        layout: of the call's tokens.
        span: (B, L) weight of the predicate's tokens, or None: not read.
        places: (B, R) the placeholders' tokens, or None: not read.
        worded: (B,) bool, whether the prompt has them.
        routing: read the maps of references.
    """

    def __init__(
        self,
        blocks: int,
        layout: CallLayout,
        span: Tensor | None,
        places: Tensor | None,
        worded: Tensor,
        routing: bool,
    ) -> None:
        self.blocks, self.layout, self.span, self.places, self.routing = blocks, layout, span, places, routing
        self.worded = worded.float()
        self.maps: list[Tensor] = []
        self.holders: list[Tensor] = []
        self.predicates: list[Tensor] = []
        lengths = torch.tensor([stop - start for ((start, stop),) in layout.references], dtype=torch.long)
        self.owners = torch.arange(len(lengths)).repeat_interleave(lengths).to(worded.device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.routing:
            self._append(self.maps, logit_map(query, key, self.layout))
        if self.places is not None:
            at = self.places[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
            queries = query[:, :, self.layout.references[0][0][0] :]
            self._append(self.holders, placeholder_loss(queries, key.gather(2, at), self.owners) * self.worded)
        if self.span is not None:
            self._append(self.predicates, self._predicate(query, key, self.span))
        return attend_plain(query, key, value)

    def _append(self, values: list[Tensor], value: Tensor) -> None:
        if len(values) < self.blocks:
            values.append(value)

    def _predicate(self, query: Tensor, key: Tensor, span: Tensor) -> Tensor:
        """Map where the predicate looks, (B, h, w), 1 on average; 0 for a prompt without one."""
        assert self.layout.image is not None, "every call has a picture"
        words = torch.einsum("bl,bhld->bhd", span, key[:, :, : span.shape[1]].float())
        picture = query[:, :, slice(*self.layout.image)]
        logits = torch.einsum("bhnd,bhd->bn", picture.float(), words) / (query.shape[1] * math.sqrt(query.shape[-1]))
        attention = logits.softmax(dim=-1) * logits.shape[-1] * (span.sum(dim=-1, keepdim=True) > 0)
        return rearrange(attention, "b (h w) -> b h w", h=self.layout.grid[0])
