"""Positions of a prompt's words and pictures in the CONDITIONING that a text encoder made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .wording import find_all_names

# A chat template's own words come before the user's: names are looked for behind the last of these.
_PROMPT_BEGINS = ("<|im_start|>user\n", "[INST]")

Span = tuple[int, int]


@dataclass(frozen=True)
class TextPositions:
    """A prompt's text and pictures, by their positions in one CONDITIONING.

    Attributes:
        text: what the tokens say, the encoder's template included.
        tokens: for each token (first character, end, position); a position that was cut away is negative.
        images: for each picture that the encoder saw, in order, (first position, end).
        length: positions of the CONDITIONING.
    """

    text: str
    tokens: tuple[tuple[int, int, int], ...]
    images: tuple[Span, ...]
    length: int

    def find(self, names: Sequence[str]) -> list[tuple[int, ...]]:
        """Positions of each name, wherever the prompt has it; subjects of one name share its places in reading order.

        Returns:
            For each name its positions; empty where the prompt lacks it, or has it fewer times than there are subjects
            of that name: which of them it means is then not known for any.
        """
        start = max((self.text.rfind(mark) + len(mark) for mark in _PROMPT_BEGINS if mark in self.text), default=0)
        places = find_all_names(self.text[start:], names)
        alike = [[index for index, other in enumerate(names) if _same_name(other, name)] for name in names]
        return [
            tuple(dict.fromkeys(at for first, end in spans for at in self._within(first + start, end + start)))
            if all(places[index] for index in owners)
            else ()
            for spans, owners in zip(places, alike)
        ]

    def _within(self, first: int, end: int) -> list[int]:
        """Positions of the tokens that write any of these characters."""
        return [
            position
            for begins, ends, position in self.tokens
            if begins < end and ends > first and 0 <= position < self.length
        ]


def _same_name(name: str, other: str) -> bool:
    return name.strip().lower() == other.strip().lower()


def token_characters(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[str, list[Span]]:
    """Decode tokens, and say which characters each of them writes.

    Args:
        ids: of the tokens.
        decode: the tokenizer's.

    Returns:
        The text, and for each token its (first character, end).
    """
    text = decode(ids)
    pieces = [decode([token]) for token in ids]
    if "".join(pieces) == text:  # byte-level tokenizers: one pass
        ends = list(accumulate(map(len, pieces)))
    else:  # SentencePiece and CLIP write spaces by what stands before: decode every prefix
        ends = [len(decode(ids[: index + 1])) for index in range(len(ids))]
    return text, list(zip([0, *ends[:-1]], ends))
