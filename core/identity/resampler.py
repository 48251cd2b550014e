"""The grounding resampler: image tokens + phrase + box to T tokens per subject (MS-Diffusion arXiv:2406.07209, 3.2).

A Perceiver whose queries are made from the subject's name and box. DreamRelation's equation 9 writes a gate;
the released model has none, and its parameter names are kept here so that a file's keys are this module's keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor, nn

from ..attention import attend
from ..shapes import check_shape
from .fourier import FREQUENCIES, fourier_features


@dataclass(frozen=True)
class ResamplerConfig:
    """Sizes of a resampler; the released one is ``(1280, 4, 64, 1280, 16, 1664, 2048, 5120, 768)``."""

    width: int
    depth: int
    head_width: int
    attention_width: int
    tokens: int
    image_width: int
    context_width: int
    feedforward_width: int
    phrase_width: int

    @classmethod
    def from_state(cls, state: dict[str, Tensor], head_width: int) -> ResamplerConfig:
        """Read the sizes from a state dict with the published names.

        Raises:
            KeyError: a tensor that a size is read from is missing (its name is the error's argument).
        """
        _, tokens, width = state["grounding_latents"].shape
        return cls(
            width=width,
            depth=sum(key.startswith("layers.") and key.endswith(".0.to_q.weight") for key in state),
            head_width=head_width,
            attention_width=state["layers.0.0.to_q.weight"].shape[0],
            tokens=tokens,
            image_width=state["proj_in.weight"].shape[1],
            context_width=state["proj_out.weight"].shape[0],
            feedforward_width=state["layers.0.1.1.weight"].shape[0],
            phrase_width=state["latent_proj.0.weight"].shape[1] - FREQUENCIES * 8,
        )


class PerceiverAttention(nn.Module):
    """Latents attend to [image tokens, latents]; no biases, two norms."""

    def __init__(self, config: ResamplerConfig, ops: ModuleType, **factory) -> None:
        super().__init__()
        if config.attention_width % config.head_width:
            raise ValueError(
                f"resampler: attention width {config.attention_width} is not a multiple of the head width "
                f"{config.head_width}; the file's metadata should name its 'head_width'."
            )
        self.heads = config.attention_width // config.head_width
        self.norm1 = ops.LayerNorm(config.width, **factory)
        self.norm2 = ops.LayerNorm(config.width, **factory)
        self.to_q = ops.Linear(config.width, config.attention_width, bias=False, **factory)
        self.to_kv = ops.Linear(config.width, 2 * config.attention_width, bias=False, **factory)
        self.to_out = ops.Linear(config.attention_width, config.width, bias=False, **factory)

    def forward(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """(S, L, W), (S, T, W) to (S, T, W)."""
        latents = self.norm2(latents)
        source = torch.cat((self.norm1(tokens), latents), dim=1)  # (S, L+T, W)
        key, value = self.to_kv(source).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(latents), key, value, self.heads))


class Resampler(nn.Module):
    """Image tokens, phrase and box of each subject to its identity tokens."""

    def __init__(self, config: ResamplerConfig, ops: ModuleType = nn, **factory) -> None:
        super().__init__()
        self.config = config
        self.grounding_latents = nn.Parameter(
            torch.randn(1, config.tokens, config.width, **factory) / config.width**0.5
        )
        query_width = config.phrase_width + FREQUENCIES * 8
        self.latent_proj = nn.Sequential(
            ops.Linear(query_width, 2 * query_width, **factory),
            nn.GELU(),
            ops.Linear(2 * query_width, config.tokens * config.width, **factory),
        )
        self.latent_norm = ops.LayerNorm(config.width, **factory)
        self.proj_in = ops.Linear(config.image_width, config.width, **factory)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    PerceiverAttention(config, ops, **factory),
                    nn.Sequential(
                        ops.LayerNorm(config.width, **factory),
                        ops.Linear(config.width, config.feedforward_width, bias=False, **factory),
                        nn.GELU(),
                        ops.Linear(config.feedforward_width, config.width, bias=False, **factory),
                    ),
                )
            )
            for _ in range(config.depth)
        )
        self.attention_norm = ops.LayerNorm(config.width, **factory)
        self.proj_out = ops.Linear(config.width, config.context_width, **factory)
        self.norm_out = ops.LayerNorm(config.context_width, **factory)

    def queries(self, phrases: Tensor, boxes: Tensor, grounded: Tensor) -> Tensor:
        """Build the queries (S, T, W): from phrase and box where grounded, else the learned latents."""
        conditions = torch.cat((phrases, fourier_features(boxes).to(phrases.dtype)), dim=-1)
        latents = rearrange(self.latent_proj(conditions), "s (t w) -> s t w", t=self.config.tokens)
        learned = self.grounding_latents.to(latents)
        return torch.where(grounded[:, None, None], self.latent_norm(latents), learned)

    def forward(self, tokens: Tensor, phrases: Tensor, boxes: Tensor, grounded: Tensor | None = None) -> Tensor:
        """Cross-attend from queries of phrase and box to each subject's image tokens.

        Args:
            tokens: (S, L, image_width) image tokens, and local tokens after them; their order does not matter.
            phrases: (S, phrase_width) CLIP-L pooled and unprojected.
            boxes: (S, 4) fractions of the output picture.
            grounded: (S,) bool; False takes the learned latents as queries. Default: all True.

        Returns:
            (S, T, context_width).

        Raises:
            ValueError: a shape does not fit the model, naming the input.
        """
        sizes = check_shape(tokens, "S L W", "image tokens", W=self.config.image_width)
        check_shape(phrases, "S P", "phrase embeddings", S=sizes["S"], P=self.config.phrase_width)
        check_shape(boxes, "S 4", "boxes", S=sizes["S"])
        if grounded is None:
            grounded = torch.ones(sizes["S"], dtype=torch.bool, device=tokens.device)
        tokens = self.proj_in(tokens)
        latents = self.queries(phrases, boxes, grounded)
        for attention, feedforward in self.layers:  # pyright: ignore[reportGeneralTypeIssues] (pairs of modules)
            latents = latents + attention(tokens, latents)
            latents = latents + feedforward(latents)
        return self.norm_out(self.proj_out(self.attention_norm(latents)))
