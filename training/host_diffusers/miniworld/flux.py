"""Flux with references on diffusers: the miniworld's own, small, with DreamO's tables and its door into attention.

The architecture is diffusers' FluxTransformer2DModel, unchanged; references are tokens of its sequence as in DreamO
(arXiv:2504.16915): a hook after `x_embedder` adds the tables' rows, position ids run down the diagonal, and every
attention is computed by a callable of the caller's, plain unless something is recorded or steered.
"""

from __future__ import annotations

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from core.routing.token_layout import PATCH, DreamOEmbeddings, Grid, TokenLayout, length, positions, token_grid

from ..flux.attention import Attend, HookedFluxAttnProcessor, attend_plain
from ..flux.network import rows_added
from ..flux.tokens import grid_ids, pack, unpack
from .architectures import CHANNELS, TEXT_G

FLUX = {
    "in_channels": CHANNELS * PATCH**2,
    "num_layers": 3,
    "num_single_layers": 6,
    "attention_head_dim": 32,
    "num_attention_heads": 5,
    "joint_attention_dim": TEXT_G["hidden_size"],
    "pooled_projection_dim": TEXT_G["projection_dim"],
    "guidance_embeds": False,
    "axes_dims_rope": (4, 14, 14),
}
TEXT_TOKENS = 24  # captions of one or two creatures, placeholders included


def flux_config(channels: int = CHANNELS) -> dict:
    """Return the config of a small Flux, for latents of any number of channels; 2 x 2 latents make a token."""
    return {**FLUX, "in_channels": channels * PATCH**2}


class RoutedFlux(nn.Module):
    """A Flux transformer and DreamO's tables, so that one optimiser and one checkpoint hold both.

    Args:
        config: of FluxTransformer2DModel.
    """

    def __init__(self, config: dict = FLUX) -> None:
        super().__init__()
        self.transformer = FluxTransformer2DModel(**config)
        self.transformer.set_attn_processor(HookedFluxAttnProcessor())
        width = config["num_attention_heads"] * config["attention_head_dim"]
        self.tables = nn.ParameterDict(
            {
                "task": torch.randn(2, width) * 0.02,
                "index": torch.randn(10, width) * 0.02,
                "words": torch.randn(10, config["joint_attention_dim"]) * 0.05,
            }
        )
        for name, part in self.transformer.named_modules():
            if isinstance(part, nn.Linear) and "norm" in name:  # modulations: every block begins as the identity
                nn.init.zeros_(part.weight)
                nn.init.zeros_(part.bias)

    def rows(self) -> DreamOEmbeddings:
        """Return the tables, with their gradients."""
        return DreamOEmbeddings(self.tables["task"], self.tables["index"], self.tables["words"])

    def positions(self, grid: Grid, references: tuple[Grid, ...]) -> Tensor:
        """Make (tokens of all references, 3) position ids: DreamO's, down the diagonal."""
        return positions(grid, references)

    def embedded(self, grid: Grid, references: tuple[Grid, ...]) -> Tensor | None:
        """Return (1, tokens of picture and references, width) to add after `x_embedder`; None adds nothing."""
        slots = tuple(range(1, len(references) + 1))
        return self.rows().embedding(length(grid), tuple(map(length, references)), slots)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text: Tensor,
        pooled: Tensor,
        references: list[Tensor] | None = None,
        attend: Attend = attend_plain,
    ) -> Tensor:
        """Predict the velocity, noise minus picture.

        Args:
            noisy: (B, C, h, w) latents of unit variance, even h and w.
            time: (B,) in [0, 1]; 1 is noise.
            text: (B, L, E) context; pooled: (B, P).
            references: (B, C, h_i, w_i) each, in the order of their slots 1, 2, ...; None is plain Flux, without
                embeddings, as the negative side of guidance.
            attend: computes every attention, in the order of the blocks.
        Returns:
            (B, C, h, w).
        """
        tokens, grid = pack(noisy), token_grid(*noisy.shape[-2:])
        ids = torch.cat((grid_ids(grid), self.positions(grid, grids(references or []))))
        embeddings = None if references is None else self.embedded(grid, grids(references))
        with rows_added(self.transformer.x_embedder, embeddings):
            out = self.transformer(
                torch.cat((tokens, *map(pack, references or [])), dim=1),
                text,
                pooled,
                time,
                ids.to(noisy.device),
                torch.zeros(text.shape[1], 3, device=noisy.device),
                joint_attention_kwargs={"attend": attend},
                return_dict=False,
            )[0]
        return unpack(out[:, : length(grid)], grid)


class IndexedFlux(RoutedFlux):
    """The small Flux with references as Flux's own later models take them: ComfyUI's reference method "index".

    Reference i has the position (i, row, column): a number of its own on the first axis, the same rows and columns as
    the picture. There are no embedding tables and no placeholders; DreamO's stay in the checkpoint, unused.
    """

    def positions(self, grid: Grid, references: tuple[Grid, ...]) -> Tensor:
        """Make (tokens of all references, 3) position ids."""
        rows = [grid_ids(reference) + torch.tensor([index, 0.0, 0.0]) for index, reference in enumerate(references, 1)]
        return torch.cat(rows) if rows else torch.zeros(0, 3)

    def embedded(self, grid: Grid, references: tuple[Grid, ...]) -> None:
        """Nothing is added to any token."""


def sequence_of(text_tokens: int, noisy: Tensor, references: list[Tensor]) -> TokenLayout:
    """Return how `RoutedFlux.forward` lays its tokens out."""
    return TokenLayout(text_tokens, token_grid(*noisy.shape[-2:]), grids(references))


def grids(references: list[Tensor]) -> tuple[Grid, ...]:
    """Compute the token grids of (B, C, h, w) latents."""
    return tuple(token_grid(*reference.shape[-2:]) for reference in references)
