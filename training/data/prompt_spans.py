"""The words of a prompt that say the relation, as characters and as tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from core.prompt.wording import find_names

# Words around a verb that are not the relation: "is hugging a" -> "hugging".
_BEFORE = {"is", "are", "was", "were", "be", "and", "a", "an", "the", "its", "their", "who", "that", "together"}
_AFTER = {"a", "an", "the", "with", "his", "her", "its", "another", "to", "at", "on", "by", "of", "and", "in"}
_PUNCTUATION = ".,;:!?\"'"


def find_phrase(prompt: str, phrase: str) -> tuple[int, int] | None:
    """Find the first and last-plus-one character of a phrase, whole words, in any case, with any spaces between them;
    None if it is not there."""
    return find_names(prompt, [phrase])[0]


def find_predicate(prompt: str, names: Sequence[str], relation: str = "") -> str | None:
    """Return the relation as a prompt words it.

    Args:
        prompt: e.g. "A wolf shakes hands with a leopard."
        names: the subjects' words in it.
        relation: the relation's name, taken if the prompt says it so.

    Returns:
        E.g. "shakes hands", as it stands in the prompt: what is between the first two subjects without auxiliaries,
        articles and prepositions, or, if that is nothing ("A raccoon and a sloth are shaking hands."), what follows
        the last one. None if that is nothing either.
    """
    span = find_phrase(prompt, relation)
    if span:
        return prompt[slice(*span)]
    places = sorted(span for span in find_names(prompt, names) if span)
    if not places:
        return None
    ends = [place[1] for place in places]
    starts = [place[0] for place in places[1:]] + [len(prompt)]
    for end, start in zip([ends[0], ends[-1]], [starts[0], len(prompt)]):
        if words := _trimmed(prompt[end:start]):
            return words
    return None


def _trimmed(text: str) -> str:
    """Strip auxiliaries, articles, prepositions and punctuation off both ends of a part of a prompt."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    words = [text[slice(*span)].strip(_PUNCTUATION).lower() for span in spans]
    first, last = 0, len(words)
    while first < last and (not words[first] or words[first] in _BEFORE):
        first += 1
    while first < last and (not words[last - 1] or words[last - 1] in _AFTER):
        last -= 1
    return text[spans[first][0] : spans[last - 1][1]].strip(_PUNCTUATION) if first < last else ""


def token_span(prompt: str, phrase: str, count_tokens: Callable[[str], int]) -> tuple[int, int] | None:
    """Find the first and last-plus-one token of a phrase, see `token_spans`."""
    return token_spans(prompt, [phrase], count_tokens)[0]


def token_spans(
    prompt: str, phrases: Sequence[str], count_tokens: Callable[[str], int]
) -> list[tuple[int, int] | None]:
    """Find the first and last-plus-one token of each phrase, the start token counted as token 0; no two overlap.

    Args:
        prompt: the whole prompt.
        phrases: words of it; equal ones stand in different places, in reading order.
        count_tokens: number of tokens of a text without start, end and padding. Byte-pair encodings of CLIP never
            cross a word border, so counting the prompt's beginnings is exact where spaces part the words.

    Returns:
        None for a phrase that is not in the prompt.
    """
    return [
        span and (1 + count_tokens(prompt[: span[0]]), 1 + count_tokens(prompt[: span[1]]))
        for span in find_names(prompt, phrases)
    ]
