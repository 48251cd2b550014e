"""Pictures of one scene, scored and put in order with the CLIPs that the graph holds.

relation  100 cos(picture, predicate)            CLIP-R of DreamRelation (arXiv:2410.23280)
identity  100 cos(crop of the box, photograph), mean over the subjects
swapped   another assignment of boxes to photographs fits better than the scene's own, by more than a margin for each
          subject on average: the subjects stand in each other's places

A whole picture does not show which subject is where, so identity is measured in the boxes. Crops are padded white to
squares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.identity.image_prep import cut_out, squash
from ...core.prompt.predicate import find_predicate
from ...core.scene import Box, Scene

SWAP_MARGIN = 2.0  # of 100 cos
MOST_PERMUTED = 6  # subjects; 720 assignments


@dataclass(frozen=True)
class PictureScore:
    """One picture of the batch.

    Attributes:
        index: in the batch, from 0.
        prompt, relation: 100 cos with the whole prompt and with the predicate; None where CLIP and CLIP vision do not
            belong together, or the prompt has no predicate.
        subjects: 100 cos of each subject's box with its photographs.
        swapped: the subjects stand in each other's places.
    """

    index: int
    prompt: float | None
    relation: float | None
    subjects: tuple[float, ...]
    swapped: bool

    @property
    def identity(self) -> float:
        return sum(self.subjects) / len(self.subjects)


def score_pictures(
    images: Tensor,
    scene: Scene,
    prompt: str,
    embed_images: Callable[[Sequence[Tensor]], Tensor],
    embed_texts: Callable[[Sequence[str], int], Tensor | None],
) -> list[PictureScore]:
    """Score every picture, best first.

    Args:
        images: (B, H, W, 3) in [0, 1].
        scene: with at least one subject.
        prompt: the sentence.
        embed_images: square pictures (3, s, s) of any sizes to (N, E).
        embed_texts: texts and E to (N, E) in the same space; None where there is no such space.
    """
    pictures = images[..., :3].movedim(-1, 1).float().cpu()
    names = [subject.name for subject in scene.subjects]
    # 1. embed: pictures, boxes of every picture, photographs
    whole = F.normalize(embed_images(list(pictures)), dim=-1)  # (B, E)
    boxes = [subject.box for subject in scene.subjects]
    crops = [white_square(cut_box(picture, box)) for picture in pictures for box in boxes]
    in_boxes = F.normalize(embed_images(crops), dim=-1).unflatten(0, (len(pictures), len(boxes)))  # (B, S, E)
    references = torch.stack([_reference_embedding(subject, embed_images) for subject in scene.subjects])  # (S, E)
    predicate = find_predicate(prompt, names)
    texts = embed_texts([prompt, predicate or prompt], whole.shape[-1])
    # 2. compare
    similarity = 100 * torch.einsum("b s e, r e -> b r s", in_boxes, references)  # reference r, box s
    scores = []
    for index in range(len(pictures)):
        of_texts = [None, None] if texts is None else (100 * F.normalize(texts, dim=-1) @ whole[index]).tolist()
        scores.append(
            PictureScore(
                index,
                of_texts[0],
                of_texts[1] if predicate else None,
                tuple(similarity[index].diagonal().tolist()),
                is_swapped(similarity[index]),
            )
        )
    # 3. put in order
    return in_order(scores)


def in_order(scores: Sequence[PictureScore]) -> list[PictureScore]:
    """Sort best first: pictures without a swap, then by the sum of the ranks in relation and in identity.

    Ranks, because cosines with texts and with pictures have different spreads; ties go to the better identity, then to
    the earlier picture.
    """

    def ranks(values: Sequence[float]) -> list[int]:
        return [sum(other > value for other in values) for value in values]

    identity = ranks([score.identity for score in scores])
    relation = ranks([score.relation or 0.0 for score in scores])
    order = sorted(
        range(len(scores)),
        key=lambda row: (scores[row].swapped, relation[row] + identity[row], -scores[row].identity, scores[row].index),
    )
    return [scores[row] for row in order]


def is_swapped(similarity: Tensor) -> bool:
    """Whether another assignment fits better than the diagonal, by SWAP_MARGIN for each subject on average.

    Args:
        similarity: (S, S), reference r and box s.
    """
    count = len(similarity)
    if not 1 < count <= MOST_PERMUTED:
        return False
    rows = range(count)
    best = max(float(similarity[list(rows), list(columns)].sum()) for columns in permutations(rows))
    return best > float(similarity.diagonal().sum()) + SWAP_MARGIN * count


def cut_box(picture: Tensor, box: Box) -> Tensor:
    """(3, H, W) to the part inside a box, at least one pixel."""
    height, width = picture.shape[-2:]
    left, top = min(int(box.x0 * width), width - 1), min(int(box.y0 * height), height - 1)
    right, bottom = max(left + 1, round(box.x1 * width)), max(top + 1, round(box.y1 * height))
    return picture[:, top:bottom, left:right]


def white_square(picture: Tensor) -> Tensor:
    """(3, h, w) padded white to a square, the picture in its middle."""
    height, width = picture.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(picture, (left, side - width - left, top, side - height - top), value=1.0)


def _reference_embedding(subject, embed_images: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
    """(E,) mean of the normalised embeddings of a subject's photographs."""
    pieces = [white_square(piece) for piece in cut_out(subject.photographs, subject.mask)]
    return F.normalize(F.normalize(embed_images(pieces), dim=-1).mean(0), dim=-1)


def square_batch(pictures: Sequence[Tensor], size: int) -> Tensor:
    """Squash pictures (3, h, w) to (N, size, size, 3), an encoder's IMAGE."""
    return torch.stack([squash(picture, size) for picture in pictures]).movedim(1, -1)


def score_text(scores: Sequence[PictureScore], names: Sequence[str]) -> str:
    """Write the table as Markdown, best picture first; pictures are counted from 1."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    lines = [
        "| place | picture | relation | identity | " + " | ".join(names) + " | prompt | swapped |",
        "|---" * (len(names) + 6) + "|",
    ]
    for place, score in enumerate(scores, 1):
        cells = [
            str(place),
            str(score.index + 1),
            number(score.relation),
            number(score.identity),
            *map(number, score.subjects),
            number(score.prompt),
            "yes" if score.swapped else "no",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
