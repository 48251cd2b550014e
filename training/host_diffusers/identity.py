"""attach_identity: MS-Diffusion's parallel image cross-attention (arXiv:2406.07209, eq. 6) in a diffusers UNet.

    out = to_out( Attention(Q, K_text, V_text) + gamma * Attention(Q, K_image, V_image; mask) )

What differs from call to call (the pictures' identity tokens, the predicate's place in the prompt) travels as an
argument of the call, so gradient checkpointing recomputes with what the first pass saw and nothing has to be reset:

    detach = attach_identity(unet, strength=0.6)
    batch = identity_batch(branch, subjects, background, boxes, weights, latent_size=(128, 128), unet=unet)
    unet(noisy, t, text, added_cond_kwargs=..., cross_attention_kwargs=CrossAttentionExtras(identity=batch).kwargs())

Keys and values keep their graph, so the branch and the resampler can be trained through it; projected once under
``torch.no_grad()`` for many pictures, a batch of them is ``batch.take(indices)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from einops import rearrange
from torch import Tensor, nn

from core.attention import as_bias, attend
from core.identity.branch import IdentityBranch, image_attention
from core.identity.tokens import token_gains, token_mask
from core.scene import coverage
from core.shapes import check_shape

from .unet import cross_attentions, grid_of, unet_context

# A name that diffusers passes to every attention without warning at those that do not take it (the self-attentions).
_KWARG = "ip_hidden_states"


@dataclass(frozen=True, eq=False)
class IdentityBatch:
    """Identity tokens of B pictures as keys and values at every site.

    Attributes:
        sites: for each site keys and values (B, M, C), in the published order.
        masks: by level of the UNet, (B, h*w, M), 0 where a cell may attend and -inf where not.
    """

    sites: tuple[tuple[Tensor, Tensor], ...]
    masks: dict[int, Tensor]

    def take(self, rows: Tensor) -> IdentityBatch:
        """Return the pictures with these indices, (B',) on the same device."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> IdentityBatch:
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def absent_before(self) -> IdentityBatch:
        """B rows without identity, then these: for classifier-free guidance with [negative, positive]."""
        sites = tuple((torch.cat((key, key)), torch.cat((torch.zeros_like(value), value))) for key, value in self.sites)
        return IdentityBatch(sites, {level: torch.cat((mask, mask)) for level, mask in self.masks.items()})

    def _map(self, change: Callable[[Tensor], Tensor]) -> IdentityBatch:
        sites = tuple((change(key), change(value)) for key, value in self.sites)
        return IdentityBatch(sites, {level: change(mask) for level, mask in self.masks.items()})


@dataclass(eq=False)
class PredicateProbe:
    """Records where the predicate's words attend, at the sites of some levels.

    Attributes:
        span: (B, L) weight of each text token, the mean over the predicate's; all zero records nothing of that picture.
        levels: the levels of the UNet whose sites are recorded.
        maps: filled by one forward pass, for each site: its level and (B, h*w) attention of the span, mean over heads.
        open: closed after the forward pass, so that gradient checkpointing's second pass adds nothing.
    """

    span: Tensor
    levels: frozenset[int]
    maps: list[tuple[int, Tensor]] = field(default_factory=list)
    open: bool = True

    def includes(self, site: int, level: int) -> bool:
        """Tell whether a site is recorded."""
        return level in self.levels

    def record(self, query: Tensor, key: Tensor, heads: int, level: int) -> None:
        """Record softmax(Q K^T / sqrt(d)) at the span for (B, N, C), (B, L, C)."""
        q = rearrange(query, "b n (h d) -> b h n d", h=heads).float()
        k = rearrange(key, "b l (h d) -> b h l d", h=heads).float()
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, H, N, L)
        attention = scores.softmax(dim=-1).mean(dim=1) @ self.span.float()[..., None]  # (B, N, 1)
        if self.open:
            self.maps.append((level, attention[..., 0]))


@dataclass(frozen=True, eq=False)
class CrossAttentionExtras:
    """What one call of the UNet adds at its text cross-attentions."""

    identity: IdentityBatch | None = None
    predicate: PredicateProbe | None = None

    def kwargs(self) -> dict[str, CrossAttentionExtras]:
        """For ``unet(..., cross_attention_kwargs=extras.kwargs())``."""
        return {_KWARG: self}


def identity_batch(
    branch: IdentityBranch,
    subjects: Tensor,
    background: Tensor,
    boxes: Tensor,
    weights: Tensor,
    latent_size: tuple[int, int],
    unet: nn.Module,
) -> IdentityBatch:
    """Project the identity tokens of B pictures at every site; gradients flow to the branch and the tokens.

    Args:
        branch: the projections; its widths must be the UNet's.
        subjects: (B, S, T, D) from the resampler; pad with any rows where a picture has fewer subjects.
        background: (T0, D).
        boxes: (B, S, 4) fractions of the picture; all zero for padding.
        weights: (B, S) factor on each subject's values; 0 drops a subject's influence.
        latent_size: (H, W) of the noisy latents.
        unet: where it will be used.

    Raises:
        ValueError: a shape does not fit; the branch belongs to another UNet.
    """
    sizes = check_shape(subjects, "B S T D", "identity tokens", D=branch.context_width)
    check_shape(boxes, "B S 4", "boxes", B=sizes["B"], S=sizes["S"])
    check_shape(weights, "B S", "subject weights", B=sizes["B"], S=sizes["S"])
    sites = cross_attentions(unet)
    widths = tuple(site.width for site, _, _ in sites)
    if widths != branch.widths or unet_context(unet) != branch.context_width:
        raise ValueError(
            f"identity model: it fits a UNet with {len(branch.widths)} text cross-attentions and context "
            f"width {branch.context_width}; this one has {len(widths)} and {unet_context(unet)}. Choose "
            "the identity model of this base."
        )
    background = background.to(subjects)
    sequence = torch.cat((background.expand(sizes["B"], -1, -1), rearrange(subjects, "b s t d -> b (s t) d")), dim=1)
    gains = token_gains(weights.to(subjects), background.shape[0], sizes["T"])  # (B, M)
    masks = {}
    for level in sorted({level for _, _, level in sites}):
        covered = coverage(boxes, *grid_of(latent_size, level))
        masks[level] = as_bias(token_mask(covered, background.shape[0], sizes["T"]), subjects.dtype)
    return IdentityBatch(tuple(projection(sequence, gains) for projection in branch.values()), masks)


def attach_identity(unet: nn.Module, strength: float = 0.6) -> Callable[[], None]:
    """Install processors that read ``CrossAttentionExtras`` in every attn2; a call without them is the plain UNet.

    Args:
        unet: of SDXL's architecture. What sits in its attention slots is kept and called.
        strength: gamma on the image branch; 0.6 in DreamRelation.

    Returns:
        detach: puts back what was there.
    """
    replaced = []
    for index, (_, attention, level) in enumerate(cross_attentions(unet)):
        replaced.append((attention, attention.processor))
        attention.set_processor(_Processor(attention.processor, index, level, strength))

    def detach() -> None:
        for attention, previous in replaced:
            attention.set_processor(previous)

    return detach


class _Processor:
    """One text cross-attention with the image branch beside it."""

    def __init__(self, previous: Callable, index: int, level: int, strength: float) -> None:
        self.previous, self.index, self.level, self.strength = previous, index, level, strength

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: CrossAttentionExtras | None = None,
    ) -> Tensor:
        extras = ip_hidden_states if isinstance(ip_hidden_states, CrossAttentionExtras) else CrossAttentionExtras()
        identity = extras.identity if self.strength else None
        probe = extras.predicate if extras.predicate and extras.predicate.includes(self.index, self.level) else None
        if identity is None and probe is None:
            return self.previous(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        # 1. the image branch
        query = attn.to_q(hidden_states)
        added = 0.0
        if identity is not None:
            key, value = (part.to(query.dtype) for part in identity.sites[self.index])
            mask = identity.masks[self.level].to(query.dtype)
            added = self.strength * image_attention(query, key, value, attn.heads, mask)
        # 2. the text branch, fused with it where nothing else is in the way
        if _is_plain(attn, self.previous) and attention_mask is None:
            key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
            if probe is not None:
                probe.record(query, key, attn.heads, self.level)
            return attn.to_out[1](attn.to_out[0](attend(query, key, value, attn.heads) + added))
        if probe is not None:
            probe.record(query, attn.to_k(encoder_hidden_states), attn.heads, self.level)
        # Somebody else's processor ends in to_out already; to_out is affine, so the image branch goes through it alone.
        out = self.previous(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if identity is not None:
            out = out + (attn.to_out[0](added) - attn.to_out[0](torch.zeros_like(added))) / attn.rescale_output_factor
        return out


def _is_plain(attn: Attention, previous: Callable) -> bool:
    """Tell whether what we wrap is diffusers' own cross-attention with nothing special, so that ours may be fused."""
    special = (attn.norm_q, attn.norm_k, attn.norm_cross, attn.group_norm, attn.spatial_norm)
    return (
        isinstance(previous, (AttnProcessor, AttnProcessor2_0))
        and not any(special)
        and not attn.residual_connection
        and attn.rescale_output_factor == 1
    )
