"""The parallel image cross-attention beside every text cross-attention (MS-Diffusion arXiv:2406.07209, equation 6).

    out = to_out( Attention(Q, K_text, V_text) + gamma * Attention(Q, K_image, V_image; mask) )

Keys and values of the identity tokens do not change during sampling: they are projected once per run, and the 680 MB of
projections need not stay with the sampler. The query is the text attention's own, so a relation LoRA acts on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from torch import Tensor, nn

from ..attention import attend
from ..shapes import check_shape
from .tokens import IdentityTokens, token_mask


class SiteProjection(nn.Module):
    """Keys and values of the identity tokens at one cross-attention."""

    def __init__(self, width: int, context_width: int, ops: ModuleType = nn, **factory) -> None:
        super().__init__()
        self.to_k_ip = ops.Linear(context_width, width, bias=False, **factory)
        self.to_v_ip = ops.Linear(context_width, width, bias=False, **factory)

    def forward(self, sequence: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, D) and (B or 1, M) to keys and values (B, M, C), values times gains."""
        return self.to_k_ip(sequence), self.to_v_ip(sequence) * gains[..., None]


class IdentityBranch(nn.ModuleDict):
    """One projection per text cross-attention, in the published order, under the published names.

    The file counts self- and cross-attentions in one list, so the projections are at its odd places: 1, 3, 5, ...
    """

    def __init__(self, widths: tuple[int, ...], context_width: int, ops: ModuleType = nn, **factory) -> None:
        super().__init__(
            {
                str(2 * site + 1): SiteProjection(width, context_width, ops, **factory)
                for site, width in enumerate(widths)
            }
        )
        self.widths = widths
        self.context_width = context_width

    def project(self, tokens: IdentityTokens) -> ProjectedIdentity:
        """Project to keys and values at every site, once per run."""
        check_shape(tokens.sequence, "1 M D", "identity tokens", D=self.context_width)
        sequence, gains = tokens.sequence, tokens.gains.to(tokens.sequence)
        return ProjectedIdentity(tokens, tuple(projection(sequence, gains) for projection in self.values()))


@dataclass(frozen=True, eq=False)
class ProjectedIdentity:
    """Identity tokens as keys and values at every site: all that a sampler needs.

    Attributes:
        tokens: the tokens that were projected.
        sites: for each site keys and values (1, M, C), in the published order.
    """

    tokens: IdentityTokens
    sites: tuple[tuple[Tensor, Tensor], ...]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(key.shape[-1] for key, _ in self.sites)

    def cpu(self) -> ProjectedIdentity:
        """Move to the CPU, where it waits for its sampler."""
        tokens = IdentityTokens(
            self.tokens.subjects.cpu(),
            self.tokens.background.cpu(),
            self.tokens.layout,
            self.tokens.weights.cpu(),
            self.tokens.background_gain,
        )
        return ProjectedIdentity(tokens, tuple((key.cpu(), value.cpu()) for key, value in self.sites))

    def mask(self, coverage: Tensor) -> Tensor:
        """(..., S, h, w) bool coverage to the (..., h*w, M) bool mask over the sequence.

        A subject of weight 0 has no cells: in those of another its tokens would take a share of the attention.
        """
        acting = (self.tokens.weights != 0).to(coverage.device)[:, None, None]
        return token_mask(coverage & acting, self.tokens.background.shape[0], self.tokens.subjects.shape[1])


def image_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Attend to the identity tokens at one site; the result is added before the site's output projection.

    Args:
        query: (B, N, C) of the text cross-attention, its LoRA included.
        key, value: (B or 1, M, C) from ``SiteProjection``.
        heads: number of attention heads.
        mask: (N, M) or (B, N, M), bool or additive, from ``token_mask``.

    Returns:
        (B, N, C), exactly zero where only background tokens of gain 0 are seen.
    """
    check_shape(mask[..., 0], "B N" if mask.ndim == 3 else "N", "identity mask", N=query.shape[1])
    return attend(query, key, value, heads, mask[:, None] if mask.ndim == 3 else mask)
