"""One call of a Flux-class transformer with references in its sequence, on latents instead of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.routing.call_layout import CallLayout, Grid
from core.routing.token_layout import PATCH, DreamOEmbeddings

from .attention import Attend
from .tokens import INDEX_SCALE, four_axes, grid_ids, pack, reference_ids, text_ids, unpack

TABLES = ("task", "index")


class FluxNetwork(nn.Module):
    """FLUX.1 or FLUX.2, a rule for references, and DreamO's tables where there are any.

    Args:
        transformer: of diffusers, frozen but for a LoRA.
        method: of the references' positions, one of `tokens.METHODS`.
        tables: rows added after `x_embedder` where references are; None adds none.
        dtype: that the transformer computes in.
    """

    def __init__(
        self, transformer: nn.Module, method: str, tables: DreamOEmbeddings | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.transformer, self.method, self.dtype = transformer, method, dtype
        self.axes = len(transformer.config.axes_dims_rope)
        self.patch = PATCH if self.axes == 3 else 1  # Flux.2's latents are patches already
        rows = {name: getattr(tables, name).float().clone() for name in TABLES} if tables else {}
        self.tables = nn.ParameterDict({name: nn.Parameter(row, requires_grad=False) for name, row in rows.items()})

    @property
    def distils_guidance(self) -> bool:
        """Whether guidance is an input of the base, which then is called once."""
        return bool(self.transformer.config.guidance_embeds)

    def grid(self, latents: Tensor) -> Grid:
        """Count token rows and columns of (..., h, w) latents."""
        return latents.shape[-2] // self.patch, latents.shape[-1] // self.patch

    def representable(self, time: Tensor) -> Tensor:
        """Round times to those that the transformer embeds: it makes thousands of them in its own precision.

        In bfloat16 these lie 2/1000 to 4/1000 apart above t = 0.25; the noise must be of that very time.
        """
        return (time.to(self.dtype) * 1000).float() / 1000

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
        references: Sequence[Tensor] = (),
        guidance: float = 1.0,
        attend: Attend | None = None,
        token_index: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity, noise minus picture.

        Args:
            noisy: (B, C, h, w) normalised latents; h and w even on FLUX.1.
            time: (B,) in [0, 1]; 1 is noise.
            context: (B, L, E); pooled: (B, P) on FLUX.1.
            references: (B, C, h_i, w_i) each, in the order of their slots 1, 2, ...
            guidance: an input of guidance-distilled bases.
            attend: computes every attention, in the order of the blocks; needs `attention.hook_attention`.
            token_index: which of all reference tokens take part, long; None: all. Their positions stay.

        Returns:
            (B, C, h, w) in the transformer's precision.
        """
        # 1. the sequence: tokens of the picture and the references, their positions, DreamO's rows
        grid, grids = self.grid(noisy), [self.grid(each) for each in references]
        tokens, ids = pack(noisy, self.patch), grid_ids(grid)
        added = self._rows(grid, grids) if references else None
        if references:
            reference_tokens = torch.cat([pack(each, self.patch) for each in references], dim=1)
            positions = reference_ids(self.method, grid, grids, INDEX_SCALE[self.axes])
            if token_index is not None:
                rows = token_index.to(reference_tokens.device)
                reference_tokens, positions = reference_tokens[:, rows], positions[token_index.cpu()]
                if added is not None:
                    count = tokens.shape[1]
                    added = torch.cat((added[:, :count], added[:, count:][:, rows.to(added.device)]), dim=1)
            tokens, ids = torch.cat((tokens, reference_tokens), dim=1), torch.cat((ids, positions))
        # 2. the call
        ids = four_axes(ids) if self.axes == 4 else ids
        inputs = {
            "hidden_states": tokens.to(self.dtype),
            "encoder_hidden_states": context.to(self.dtype),
            "timestep": time.float(),
            "img_ids": ids.to(noisy.device),
            "txt_ids": text_ids(context.shape[1], self.axes).to(noisy.device),
            "guidance": torch.full_like(time, guidance) if self.distils_guidance else None,
        }
        if self.axes == 3:
            assert pooled is not None, "FLUX.1 reads a pooled embedding of the prompt"
            inputs["pooled_projections"] = pooled.to(self.dtype)
        if attend is not None:
            inputs["joint_attention_kwargs"] = {"attend": attend}
        with rows_added(self.transformer.x_embedder, added):
            out = self.transformer(**inputs, return_dict=False)[0]
        return unpack(out[:, : grid[0] * grid[1]], grid, self.patch)

    def _rows(self, grid: Grid, grids: list[Grid]) -> Tensor | None:
        """Return (1, N + all reference tokens, D) of DreamO's tables."""
        if not self.tables:
            return None
        rows = DreamOEmbeddings(self.tables["task"], self.tables["index"])
        lengths = tuple(height * width for height, width in grids)
        return rows.embedding(grid[0] * grid[1], lengths, tuple(range(1, len(grids) + 1)))

    def layout(self, text: int, grid: Grid, lengths: Sequence[int]) -> CallLayout:
        """Lay out the sequence of a call.

        Args:
            text: tokens of the prompt.
            grid: of the picture.
            lengths: tokens of each reference that take part.
        """
        start = text + grid[0] * grid[1]
        ends = [start + sum(lengths[: index + 1]) for index in range(len(lengths))]
        spans = tuple(((end - length, end),) for end, length in zip(ends, lengths))
        return CallLayout(start + sum(lengths), grid, (text, start), ((0, text),), spans)


@contextmanager
def rows_added(layer: nn.Module, rows: Tensor | None) -> Iterator[None]:
    """Add rows to a layer's output inside the context; None adds nothing."""
    if rows is None:
        yield
        return
    hook = layer.register_forward_hook(lambda module, inputs, out: out + rows.to(out))
    try:
        yield
    finally:
        hook.remove()
