"""Attention of Flux's and Flux.2's blocks with a callable of the caller's in the place of the attention itself.

diffusers' own processors stay where nothing is to be recorded. Layers are looked up by name, so LoRA layers in their
places take part.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, key, value (B, H, S, d) each to (B, H, S, d)


def attend_plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V."""
    return F.scaled_dot_product_attention(query, key, value)


class HookedFluxAttnProcessor:
    """Flux's attention of both kinds of block, and Flux.2's of double blocks."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attend: Attend = attend_plain,
    ):
        query, key, value = self._heads(attn, hidden_states, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"))
        if encoder_hidden_states is not None:  # a double block: text has its own weights and stands first
            names = ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k")
            text = self._heads(attn, encoder_hidden_states, *names)
            query, key, value = (torch.cat(pair, dim=2) for pair in zip(text, (query, key, value)))
        query, key = (apply_rotary_emb(each, image_rotary_emb) for each in (query, key))
        out = rearrange(attend(query, key, value), "b h s d -> b s (h d)")
        if encoder_hidden_states is None:
            return out
        words = encoder_hidden_states.shape[1]
        return attn.to_out[0](out[:, words:]), attn.to_add_out(out[:, :words])

    @staticmethod
    def _heads(attn: nn.Module, states: Tensor, projections: tuple[str, ...], norms: tuple[str, ...]) -> list[Tensor]:
        """Query, key, value (B, H, S, d); the first two normalised."""
        rows = [rearrange(getattr(attn, name)(states), "b s (h d) -> b h s d", h=attn.heads) for name in projections]
        return [getattr(attn, norm)(row) for norm, row in zip(norms, rows)] + rows[2:]


class HookedFlux2SingleAttnProcessor:
    """Flux.2's single blocks: one projection for query, key, value and the MLP, one back for both."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attend: Attend = attend_plain,
    ) -> Tensor:
        width = 3 * attn.inner_dim
        both = attn.to_qkv_mlp_proj(hidden_states)
        query, key, value = rearrange(both[..., :width], "b s (n h d) -> n b h s d", n=3, h=attn.heads)
        query, key = (
            apply_rotary_emb(norm(each), image_rotary_emb) for norm, each in ((attn.norm_q, query), (attn.norm_k, key))
        )
        out = rearrange(attend(query, key, value), "b h s d -> b s (h d)")
        return attn.to_out(torch.cat((out, attn.mlp_act_fn(both[..., width:])), dim=-1))


def hook_attention(transformer: nn.Module) -> int:
    """Put these processors into every block; returns the number of blocks. Layers are not touched."""
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    for block in blocks:
        fused = hasattr(block.attn, "to_qkv_mlp_proj")
        block.attn.set_processor(HookedFlux2SingleAttnProcessor() if fused else HookedFluxAttnProcessor())
    return len(blocks)
