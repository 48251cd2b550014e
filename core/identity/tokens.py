"""Identity tokens: the features of each subject, where it may act, and how strongly.

The sequence is [background | subject 1 | subject 2 | ...] as in MS-Diffusion (arXiv:2406.07209, 3.3). A cell attends
to the tokens of the subjects whose boxes cover it, all of them in one softmax, or, covered by none, to the background
tokens. The released code then sets such cells to zero. We give the background tokens the gain 0 instead: the same
numbers, and the mask never has an empty row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..scene import Layout
from ..shapes import check_shape


@dataclass(frozen=True, eq=False)
class IdentityTokens:
    """Tokens of the subjects of one picture.

    Attributes:
        subjects: (S, T, D).
        background: (T0, D), T0 >= 1.
        layout: one box per subject.
        weights: (S,) factor on each subject's values; it takes the place of MS-Diffusion's ``subject_scales``.
        background_gain: 0 as released: cells outside every box get nothing; 1 lets the background tokens act.
    """

    subjects: Tensor
    background: Tensor
    layout: Layout
    weights: Tensor
    background_gain: float = 0.0

    def __post_init__(self) -> None:
        sizes = check_shape(self.subjects, "S T D", "identity tokens")
        check_shape(self.background, "T0 D", "background tokens", D=sizes["D"])
        check_shape(self.weights, "S", "subject weights", S=sizes["S"])
        if len(self.layout.boxes) != sizes["S"]:
            raise ValueError(f"layout: expected {sizes['S']} boxes, one a subject, got {len(self.layout.boxes)}.")

    @property
    def sequence(self) -> Tensor:
        """(1, T0 + S*T, D)."""
        return torch.cat((self.background, rearrange(self.subjects, "s t d -> (s t) d")))[None]

    @property
    def gains(self) -> Tensor:
        """(T0 + S*T,) the factor on the value of each token of the sequence."""
        return token_gains(self.weights, self.background.shape[0], self.subjects.shape[1], self.background_gain)


def token_gains(weights: Tensor, background: int, tokens: int, background_gain: float = 0.0) -> Tensor:
    """(..., S) subject weights to (..., T0 + S*T) gains of the tokens of the sequence."""
    first = torch.full((*weights.shape[:-1], background), background_gain, dtype=weights.dtype, device=weights.device)
    return torch.cat((first, repeat(weights, "... s -> ... (s t)", t=tokens)), dim=-1)


def token_mask(coverage: Tensor, background: int, tokens: int) -> Tensor:
    """Mask the tokens that each cell may attend to.

    Args:
        coverage: (..., S, h, w) bool, which cells each subject may act on.
        background: T0, number of background tokens.
        tokens: T, tokens per subject.

    Returns:
        (..., h*w, T0 + S*T) bool, True attends; no row is empty.
    """
    covered = rearrange(coverage, "... s h w -> ... (h w) s")
    free = ~covered.any(dim=-1, keepdim=True)
    return torch.cat(
        (free.expand(*free.shape[:-1], background), repeat(covered, "... n s -> ... n (s t)", t=tokens)), dim=-1
    )
