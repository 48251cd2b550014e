"""Patch tokens and boxes to object tokens, and the image embedding to a word (arXiv:2307.11410, section 4.2).

    objects = MLP([ patch tokens or null ; Fourier(box) or null ]),   word = MLP(image embedding)

Parameter names are the released code's, so that a file's keys are these modules' keys. Where that code multiplies by a
mask (NaN * 0 is NaN), this selects.
"""

from __future__ import annotations

from types import ModuleType

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from ..identity.fourier import FREQUENCIES, fourier_features
from ..shapes import check_shape

BOX_WIDTH = 8 * FREQUENCIES  # sine and cosine of four coordinates at each frequency


class PreNormMLP(nn.Module):
    """LayerNorm, Linear, exact GELU, Linear; no residual."""

    def __init__(self, width: int, hidden: int, out: int, ops: ModuleType = nn, **factory) -> None:
        super().__init__()
        self.layernorm = ops.LayerNorm(width, **factory)
        self.fc1 = ops.Linear(width, hidden, **factory)
        self.fc2 = ops.Linear(hidden, out, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.layernorm(x))))


class ObjectTokens(nn.Module):
    """Make the tokens that the gated adapter reads, all subjects one after the other."""

    def __init__(
        self, image_width: int, context_width: int, hidden: int, tokens: int, ops: ModuleType = nn, **factory
    ) -> None:
        """
        Args:
            image_width: I, width of the image encoder's patch tokens.
            context_width: D, width of the object tokens.
            hidden: width inside the MLP.
            tokens: T, patch tokens per subject.
            ops: namespace of Linear and LayerNorm.
        """
        super().__init__()
        self.linears_image = PreNormMLP(image_width + BOX_WIDTH, hidden, context_width, ops, **factory)
        self.null_image_feature = nn.Parameter(torch.zeros(1, 1, tokens, image_width, **factory))
        self.null_position_feature = nn.Parameter(torch.zeros(1, 1, tokens, BOX_WIDTH, **factory))

    def forward(
        self,
        patches: Tensor,
        boxes: Tensor,
        present: Tensor,
        locate_single: bool = True,
        acting: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Build object tokens.

        Args:
            patches: (B, S, T, I) patch tokens of the last block, before the final norm, without the class token.
            boxes: (B, S, 4) fractions, x0 y0 x1 y1; not read where a subject is absent.
            present: (B, S) bool; absent subjects get the null features.
            locate_single: whether a row of one subject gets its box too. The paper finds that coordinates help two
                subjects and cost one its likeness; the released test script leaves them out for one.
            acting: (B,) bool, rows in which the gated adapters act; None: in all of them.

        Returns:
            (B, S * T, D), subject 0's tokens first; with `acting` also its scale (B, 1, 1), see `GatedAdapter`.

        Raises:
            ValueError: shapes that do not fit each other or the module.
        """
        _, _, tokens, width = self.null_image_feature.shape
        sizes = check_shape(patches, "B S T I", "patch tokens", T=tokens, I=width)
        batch, subjects = sizes["B"], sizes["S"]
        check_shape(boxes, "B S 4", "boxes", B=batch, S=subjects)
        check_shape(present, "B S", "subjects present", B=batch, S=subjects)
        present = present.bool()
        located = present if locate_single else present & (present.sum(dim=1, keepdim=True) > 1)
        features = fourier_features(rearrange(boxes, "b s x -> (b s) x")).to(patches.dtype)
        features = repeat(features, "(b s) w -> b s t w", b=batch, t=tokens)
        image = torch.where(present[..., None, None], patches, self.null_image_feature.to(patches))
        place = torch.where(located[..., None, None], features, self.null_position_feature.to(patches))
        joined = torch.cat((image, place), dim=-1)  # (B, S, T, I + 8F)
        tokens = self.linears_image(rearrange(joined, "b s t w -> b (s t) w"))
        return tokens if acting is None else (tokens, acting[:, None, None].to(tokens))
