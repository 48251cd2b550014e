"""The shapes of one model call, from which a family computes its layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ....core.routing.call_layout import CallLayout, Grid, Parts, Span


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a model.

    Attributes:
        network: the diffusion model, as ComfyUI builds it.
        image: shape of the latent that is denoised, (B, C, h, w) or (B, C, t, h, w).
        text: tokens of the text context.
        latents: shapes of all reference latents, in order.
        ours: which of them are steered, in the order of their regions.
        copies: for each of ours, where the text context repeats it.
        conds: the call's other model conditions.
    """

    network: Any
    image: tuple[int, ...]
    text: int
    latents: tuple[tuple[int, ...], ...]
    ours: tuple[int, ...]
    copies: tuple[tuple[Span, ...], ...] = ()
    conds: dict = field(default_factory=dict)

    def add_references(self, parts: Parts, patch: int) -> Parts:
        """Append all reference latents to the parts, named by their numbers."""
        for index, shape in enumerate(self.latents):
            parts.add(index, tokens_in(shape, patch))
        return parts

    def layout(self, parts: Parts, patch: int, alone: bool = False) -> CallLayout:
        """Lay out parts named "text", "image" and the numbers of the latents.

        Args:
            parts: in order; missing ones are not in this attention.
            patch: latent cells on a side of a token.
            alone: without the picture, in a refiner of references.
        """
        text = parts.spans.get("text")
        start = 0 if text is None else text[0]
        copies = (
            ()
            if text is None
            else tuple(tuple((start + first, start + last) for first, last in spans) for spans in self.copies)
        )
        return CallLayout(
            size=parts.size,
            grid=grid_of(self.image, patch),
            image=None if alone else parts.spans["image"],
            text=() if text is None else (text,),
            references=tuple((parts.spans[index],) for index in self.ours),
            copies=copies,
            frames=1 if alone else frames_of(self.image),
        )


def grid_of(shape: tuple[int, ...], patch: int) -> Grid:
    """Token rows and columns of a latent; sides that are no multiple are padded."""
    return math.ceil(shape[-2] / patch), math.ceil(shape[-1] / patch)


def frames_of(shape: tuple[int, ...]) -> int:
    """Frames of a latent; 1 for pictures without a time axis."""
    return shape[2] if len(shape) == 5 else 1


def tokens_in(shape: tuple[int, ...], patch: int) -> int:
    """Tokens of a latent, frames included."""
    rows, columns = grid_of(shape, patch)
    return frames_of(shape) * rows * columns
