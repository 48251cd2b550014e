"""Which transformer blocks of a base have a subject adapter (arXiv:2307.11410: every one)."""

from __future__ import annotations

from collections.abc import Mapping

ALL, FIRST, UP = "all", "first", "up"  # every one, the first of each stack, those of the up blocks


def chosen_blocks(blocks: Mapping[str, int], which: str) -> dict[str, int]:
    """Choose those that get an adapter.

    Args:
        blocks: width of each block of a base by its diffusers name.
        which: ALL, FIRST or UP.
    """
    if which == FIRST:
        return {name: width for name, width in blocks.items() if name.endswith(".0")}
    if which == UP:
        return {name: width for name, width in blocks.items() if name.startswith("up_blocks.")}
    return dict(blocks)


def are_chosen(own: Mapping[str, int], blocks: Mapping[str, int]) -> bool:
    """Whether an adapter's own blocks are one of the choices from a base's."""
    return own in [chosen_blocks(blocks, which) for which in (ALL, FIRST, UP)]
