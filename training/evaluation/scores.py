"""RelationBench's four scores (DreamRelation, arXiv:2410.23280), as cosines of embeddings times 100.

CLIP-T  picture and whole prompt            (CLIP image and text embeddings)
CLIP-R  picture and predicate alone         (nouns inflate CLIP-T: a picture of both subjects scores without a relation)
CLIP-I  picture and reference photograph    (CLIP image embeddings)
DINO    picture and reference photograph    (DINO class tokens)

The paper names no encoders; those of DreamBooth (arXiv:2208.12242) are the default: CLIP ViT-B/32 and DINO ViT-S/16.
Nor does it say how several subjects are scored: here a picture is compared with each reference and the mean taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ..common.stats import Estimate

METRICS = ("CLIP-T", "CLIP-R", "CLIP-I", "DINO")
GROUPS = ("single", "multi", "overall")


def similarity(pictures: Tensor, others: Tensor) -> Tensor:
    """Return 100 cos of rows: (N, E) and (N, E), of any lengths, to (N,)."""
    return 100 * F.cosine_similarity(pictures.float(), others.float(), dim=-1)


def subject_similarity(pictures: Tensor, references: Tensor, rows: Sequence[Sequence[int]]) -> list[float | None]:
    """Compare each picture with its references and take the mean: CLIP-I and DINO.

    Args:
        pictures: (N, E).
        references: (R, E), every photograph once.
        rows: for each picture the rows of its references; none where it has none.

    Returns:
        N numbers, None for a picture without references.
    """
    return [
        float(similarity(picture.expand(len(own), -1), references[list(own)]).mean()) if own else None
        for picture, own in zip(pictures, rows)
    ]


@dataclass(frozen=True)
class Score:
    """A mean over pictures.

    Attributes:
        mean: of 100 cos, or of a measure between 0 and 1.
        low, high: 95 % interval; None where there is one case only.
        pictures: how many.
        cases: how many different prompts with their references; seeds of one case are not independent.
    """

    mean: float
    low: float | None
    high: float | None
    pictures: int
    cases: int

    @classmethod
    def of(cls, estimate: Estimate) -> Score:
        return cls(estimate.value, estimate.low, estimate.high, estimate.samples, estimate.cases)
