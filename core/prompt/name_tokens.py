"""Find subjects' names among the tokens of a prompt: where they stand in what a text encoder makes of it.

Tokens know more than letters: an encoder's tokenizer has already taken away weights ("(red) fox"), line breaks, double
spaces, capitals and the two ways of writing an accent, and it has put textual inversions in the places of their words.
The rules are those of ``wording.find_all_names``, which searches letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .wording import find_names

_WEIGHT = re.compile(r":\s*[-+]?\d*\.?\d+\s*(?=\))")  # "(red:1.2)"
_BRACKET = re.compile(r"(?<!\\)[()]")


def find_name_tokens(tokens: Sequence[int | None], names: Sequence[Sequence[int | None]]) -> list[tuple[int, ...]]:
    """Find the positions of each name among the tokens of a prompt.

    Args:
        tokens: of the prompt, start, end and padding left out or None; None also stands for a learned embedding. It
            equals no token, itself included.
        names: the tokens of each name. Longer names are found first and a token serves one subject only, so "dog" is
            not found inside "black dog". Subjects of one name take its places in turn, in reading order.

    Returns:
        For each name the positions of all its tokens, in reading order; empty where the prompt lacks it, or has it
        fewer times than there are subjects of that name: which of them it means is then not known for any.
    """
    sharing: dict[tuple[int | None, ...], list[int]] = {}
    for index, name in enumerate(names):
        sharing.setdefault(tuple(name), []).append(index)
    used_positions: set[int] = set()
    positions: list[tuple[int, ...]] = [()] * len(names)
    for name in sorted(sharing, key=lambda name: -len(name)):
        places = []
        for start in range(len(tokens) - len(name) + 1):
            place = range(start, start + len(name))
            if _equal(tokens[start : start + len(name)], name) and used_positions.isdisjoint(place):
                places.append(place)
                used_positions.update(place)
        owners = sharing[name]
        if len(places) >= len(owners):
            for order, owner in enumerate(owners):
                positions[owner] = tuple(position for place in places[order :: len(owners)] for position in place)
    return positions


def _equal(tokens: Sequence[int | None], name: Sequence[int | None]) -> bool:
    """None equals nothing, and nothing is no name."""
    return bool(name) and None not in name and list(tokens) == list(name)


def plain_text(text: str) -> str:
    """Return a prompt as encoders read it: no weights or brackets, single spaces, composed accents."""
    text = _BRACKET.sub("", _WEIGHT.sub("", text)).replace("\\(", "(").replace("\\)", ")")
    return " ".join(unicodedata.normalize("NFC", text).split())


def mentions(text: str, name: str) -> bool:
    """Whether a prompt has a name as whole words, however either is written."""
    return find_names(plain_text(text), [plain_text(name)])[0] is not None
