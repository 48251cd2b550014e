"""Let boxes of subjects that touch reach on behind each other, as far as nobody knows.

Detectors, masks and people end a box where another body covers its subject. A relation that is learnt from such boxes
alone fuses bodies where it is drawn with boxes that overlap more, so training sees several guesses of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.seeds import seeded_generator
from ..config import Config

GUESSES = 5  # of each crop's boxes, beside the boxes as they are


def box_guesses(config: Config) -> int:
    """Return how many sets of boxes every crop is encoded with; without an identity model nothing reads them."""
    return 1 + GUESSES if config.identity.box_growth and config.models.identity else 1


def grown(boxes: Tensor, share: float, words: str) -> Tensor:
    """Move the sides that end inside another box outward, each by a random distance, to that box's far side at most.

    Args:
        boxes: (S, 4) fractions; a side moves where its box and the other one overlap.
        share: of its box's width or height that a side moves by at most.
        words: that seed the draw.

    Returns:
        (S, 4).
    """
    distances = share * torch.rand(boxes.shape, generator=seeded_generator(words))
    result = boxes.clone()
    for index, box in enumerate(boxes):
        for other in (*boxes[:index], *boxes[index + 1 :]):
            if (torch.maximum(box[:2], other[:2]) >= torch.minimum(box[2:], other[2:])).any():
                continue
            for axis in (0, 1):
                low, high, size = axis, axis + 2, box[axis + 2] - box[axis]
                if other[low] < box[low]:
                    reach = torch.maximum(box[low] - distances[index, low] * size, other[low])
                    result[index, low] = torch.minimum(result[index, low], reach)
                if box[high] < other[high]:
                    reach = torch.minimum(box[high] + distances[index, high] * size, other[high])
                    result[index, high] = torch.maximum(result[index, high], reach)
    return result
