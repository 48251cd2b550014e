"""Crops of triplets in portions whose pictures fit into memory together; what is encoded of each is kept at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from .dataset import Example

ROOM = 4 * 2**30  # bytes of pictures: about 30 crops with two photographs of 12 megapixels


def portions(examples: Iterable[Example], room: int = ROOM) -> Iterator[list[Example]]:
    """Yield crops in lists of at most `room` bytes, at least one crop each; the next is made when it is due."""
    few: list[Example] = []
    total = 0
    for example in examples:
        size = _bytes(example)
        if few and total + size > room:
            yield few
            few, total = [], 0
        few.append(example)
        total += size
    if few:
        yield few


def _bytes(example: Example) -> int:
    values = [value for value in vars(example).values() if isinstance(value, Tensor)]
    return sum(value.nbytes for value in (*values, *example.photographs))
