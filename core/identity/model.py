"""The identity model: everything one file of ``models/relate/`` holds (MS-Diffusion arXiv:2406.07209).

Its state dict is the published file with the three top-level names as prefixes:
``image_proj.*`` (the resampler), ``ms_adapter.*`` (the projections), ``dummy_image_tokens`` (the background tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from ..scene import Layout
from ..shapes import check_shape
from .branch import IdentityBranch
from .resampler import Resampler, ResamplerConfig
from .tokens import IdentityTokens


@dataclass(frozen=True)
class IdentityConfig:
    """Sizes of an identity model.

    Attributes:
        resampler: sizes of the resampler; its context width is the UNet's.
        widths: channels of each cross-attention in the published order (70 of them on SDXL).
        background_tokens: 4 in the released model.
    """

    resampler: ResamplerConfig
    widths: tuple[int, ...]
    background_tokens: int

    @classmethod
    def from_state(cls, state: dict[str, Tensor], head_width: int) -> IdentityConfig:
        """Read every size from a state dict in the prefixed layout.

        Raises:
            KeyError: a tensor that a size is read from is missing (its name is the error's argument).
        """
        prefix = "image_proj."
        resampler = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
        sites = sorted(
            int(key.split(".")[1]) for key in state if key.startswith("ms_adapter.") and key.endswith(".to_k_ip.weight")
        )
        return cls(
            ResamplerConfig.from_state(resampler, head_width),
            tuple(state[f"ms_adapter.{site}.to_k_ip.weight"].shape[0] for site in sites),
            state["dummy_image_tokens"].shape[1],
        )


@dataclass(frozen=True, eq=False)
class SubjectFeatures:
    """Encoder features of each subject; no gradients.

    Attributes:
        tokens: for each subject (L, W): 257 image tokens per photograph, and its local tokens if there are any.
        phrases: (S, P) CLIP-L pooled, unprojected.
    """

    tokens: tuple[Tensor, ...]
    phrases: Tensor


class IdentityModel(nn.Module):
    """Photographs' features, names and boxes to identity tokens, and these to keys and values at every site."""

    def __init__(self, config: IdentityConfig, ops: ModuleType = nn, **factory) -> None:
        super().__init__()
        self.config = config
        self.image_proj = Resampler(config.resampler, ops, **factory)
        self.ms_adapter = IdentityBranch(config.widths, config.resampler.context_width, ops, **factory)
        self.dummy_image_tokens = nn.Parameter(
            torch.randn(1, config.background_tokens, config.resampler.context_width, **factory)
        )

    def extract(
        self, features: SubjectFeatures, layout: Layout, weights: Tensor, grounded: bool = True
    ) -> IdentityTokens:
        """Make the identity tokens of the subjects of one picture.

        Subjects may have different numbers of photographs, so each is read on its own.

        Args:
            features: of S subjects.
            layout: S boxes.
            weights: (S,).
            grounded: build queries from name and box; False takes the learned latents.
        """
        boxes = layout.tensor().to(features.phrases)
        check_shape(boxes, "S 4", "boxes", S=len(features.tokens))
        flag = torch.tensor([grounded], device=boxes.device)
        subjects = [
            self.image_proj(tokens[None], features.phrases[i : i + 1], boxes[i : i + 1], flag)
            for i, tokens in enumerate(features.tokens)
        ]
        subjects = torch.cat(subjects)  # (S, T, D)
        return IdentityTokens(subjects, self.dummy_image_tokens[0].to(subjects), layout, weights.to(subjects))
