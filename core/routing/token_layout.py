"""Positions of reference tokens in Flux's sequence, and their embeddings (DreamO arXiv:2504.16915, section 3.2).

    [text | image | reference 1 | reference 2 | ...]

References go through the image's own input projection. Then image tokens get the task embedding's row 1, the tokens of
a reference its row 0 plus the index embedding of the reference's slot. Positions run down the diagonal: each reference
begins where the one before it ends, in both directions, the first one at the picture's lower right corner. References
stand in the order of their slots, so the order in which a user connects them does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..shapes import check_shape
from .call_layout import CallLayout, Grid

TASKS = ("subject", "identity", "style", "try-on")
MAX_REFERENCES = 9  # rows 1 to 9 of the index embedding; its row 0 is never used
PATCH = 2  # side of a token in latent cells
REFERENCE_ROW, IMAGE_ROW = 0, 1  # of the task embedding


@dataclass(frozen=True, eq=False)
class Reference:
    """One picture to take something from.

    Attributes:
        latent: (1, C, h, w) as the VAE gives it, before the model's own shift and scale; (1, C, 1, h, w) for models of
            videos.
        task: one of TASKS; the released model embeds all tasks alike, the picture's preparation differs.
        slot: 1 to 9, the number of its index embedding and of its placeholder.
        region: (H, W) in [0, 1], where in the output it may act; None: everywhere.
        weight: factor on its attention weights before they are normalised; 1 is as published, 0 leaves it out.
    """

    latent: Tensor
    task: str
    slot: int
    region: Tensor | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        shape = tuple(self.latent.shape)
        if len(shape) not in (4, 5) or shape[0] != 1 or (len(shape) == 5 and shape[2] != 1):
            faults.append(f"latent: expected (1, channels, height, width) of one picture, got {shape}")
        elif not torch.isfinite(self.latent).all():
            faults.append("image: expected numbers in [0, 1], got NaN or infinity; load the picture again")
        if self.task not in TASKS:
            faults.append(f"task: expected one of {', '.join(TASKS)}, got {self.task!r}")
        if not 1 <= self.slot <= MAX_REFERENCES:
            faults.append(f"slot: expected 1 to {MAX_REFERENCES}, got {self.slot}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            faults.append(f"weight: expected a number from 0 up, got {self.weight}")
        if self.region is not None:
            check_shape(self.region, "H W", "region")
            if not bool((self.region > 0).any()):
                faults.append("region: expected some of the picture (white), got an empty mask")
        if faults:
            raise ValueError(f"reference {self.slot}: {'; '.join(faults)}.")

    @property
    def grid(self) -> Grid:
        """Rows and columns of its tokens."""
        return self.latent.shape[-2] // PATCH, self.latent.shape[-1] // PATCH


def next_slot(references: tuple[Reference, ...]) -> int:
    """Return the lowest slot from 1 that is free.

    Raises:
        ValueError: all are taken.
    """
    used_slots = {reference.slot for reference in references}
    free = [slot for slot in range(1, MAX_REFERENCES + 1) if slot not in used_slots]
    if not free:
        raise ValueError(
            f"references: expected at most {MAX_REFERENCES}, DreamO's index embedding has no more slots. Leave one out."
        )
    return free[0]


def with_reference(references: tuple[Reference, ...], reference: Reference) -> tuple[Reference, ...]:
    """Return the references with one more, in the order of their slots.

    Raises:
        ValueError: the slot is taken.
    """
    if any(other.slot == reference.slot for other in references):
        raise ValueError(
            f"reference {reference.slot}: expected a free slot, but another reference has it. Choose "
            f"another, or 0 for the next free one."
        )
    return tuple(sorted((*references, reference), key=lambda each: each.slot))


@dataclass(frozen=True, eq=False)
class DreamOEmbeddings:
    """DreamO's learned tables.

    Attributes:
        task: (2, D), row 0 for references, row 1 for the image.
        index: (10, D), one row per slot.
        words: (10, E) T5 embeddings of [ref#1] ... [ref#9] and [res]; None where the file has none.
    """

    task: Tensor
    index: Tensor
    words: Tensor | None = None

    def __post_init__(self) -> None:
        width = check_shape(self.task, "2 D", "dreamo_task_embedding.weight")["D"]
        check_shape(self.index, "10 D", "dreamo_idx_embedding.weight", D=width)
        if self.words is not None:
            check_shape(self.words, "10 E", "dreamo_t5_embedding.weight")

    def embeddings(self, slots: tuple[int, ...]) -> Tensor:
        """(1 + R, D) the embeddings added to image tokens, then to the tokens of each reference.

        Task and index rows are summed in the tables' own dtype, as published.
        """
        references = [self.task[REFERENCE_ROW] + self.index[slot] for slot in slots]
        return torch.stack((self.task[IMAGE_ROW], *references))

    def embedding(self, image_tokens: int, lengths: tuple[int, ...], slots: tuple[int, ...]) -> Tensor:
        """Repeat them for each token, to be added after the input projection.

        Args:
            image_tokens: N.
            lengths: tokens of each reference, in order.
            slots: the slot of each.

        Returns:
            (1, N + sum of lengths, D) in the tables' dtype.
        """
        rows = zip(self.embeddings(slots), (image_tokens, *lengths), strict=True)
        return torch.cat([row.expand(length, -1) for row, length in rows])[None]


def token_grid(height: int, width: int) -> Grid:
    """Token rows and columns of a latent of any size; odd sides are padded by the model."""
    return math.ceil(height / PATCH), math.ceil(width / PATCH)


def length(grid: Grid) -> int:
    """Tokens of a grid."""
    return grid[0] * grid[1]


def positions(image: Grid, references: tuple[Grid, ...]) -> Tensor:
    """Position ids of the references: (0, row, column), each grid beyond the end of the one before.

    In float32: bfloat16, in which the released code and ComfyUI 0.3 make them, tells integers apart to 256 only.

    Args:
        image: token grid of the picture.
        references: token grids of the references, in order.

    Returns:
        (sum of lengths, 3) float32.
    """
    top, left = image
    parts = [torch.zeros(0, 3)]
    for rows, columns in references:
        row = torch.arange(top, top + rows, dtype=torch.float32)
        column = torch.arange(left, left + columns, dtype=torch.float32)
        grid = torch.stack((torch.zeros(rows, columns), *torch.meshgrid(row, column, indexing="ij")), dim=-1)
        parts.append(grid.flatten(0, 1))
        top, left = top + rows, left + columns
    return torch.cat(parts)


@dataclass(frozen=True)
class TokenLayout:
    """Layout of one call's attention sequence: [text | image | others | references].

    Attributes:
        text: number of text tokens.
        image: token grid of the picture.
        references: token grids of the references.
        others: tokens of other packs' references (Kontext) between the picture and ours.
    """

    text: int
    image: Grid
    references: tuple[Grid, ...]
    others: int = 0

    @property
    def image_tokens(self) -> slice:
        return slice(self.text, self.text + length(self.image))

    def reference_tokens(self, index: int) -> slice:
        """Slice the tokens of a reference, 0-based in the order of the sequence."""
        start = self.text + length(self.image) + self.others + sum(map(length, self.references[:index]))
        return slice(start, start + length(self.references[index]))

    @property
    def size(self) -> int:
        return self.text + length(self.image) + self.others + sum(map(length, self.references))

    def layout(self, words: tuple[tuple[int, ...], ...] = ()) -> CallLayout:
        """Convert to spans; ``words`` are the text positions of each reference's placeholder."""
        image = self.image_tokens
        places = (self.reference_tokens(index) for index in range(len(self.references)))
        return CallLayout(
            size=self.size,
            grid=self.image,
            image=(image.start, image.stop),
            text=((0, self.text),),
            references=tuple(((place.start, place.stop),) for place in places),
            copies=tuple(tuple((at, at + 1) for at in each) for each in words),
        )
