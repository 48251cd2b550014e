"""The words of a prompt that say the relation, as characters and as tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from core.prompt.wording import between_words

# Words around a verb that are not the relation: "is hugging a" -> "hugging".
_BEFORE = {"is", "are", "was", "were", "be", "and", "a", "an", "the", "its", "their", "who", "that", "together"}
_AFTER = {"a", "an", "the", "with", "his", "her", "its", "another", "to", "at", "on", "by", "of", "and", "in"}
_PUNCTUATION = ".,;:!?\"'"


def find_phrase(prompt: str, phrase: str) -> tuple[int, int] | None:
    """Find the first and last-plus-one character of a phrase, whole words, in any case; None if it is not there."""
    phrase = phrase.strip()
    match = re.search(between_words(re.escape(phrase), phrase), prompt, re.IGNORECASE) if phrase else None
    return match.span() if match else None


def find_predicate(prompt: str, names: Sequence[str], relation: str = "") -> str | None:
    """Return the relation as a prompt words it.

    Args:
        prompt: e.g. "A wolf shakes hands with a leopard."
        names: the subjects' words in it.
        relation: the relation's name, taken if the prompt says it so.

    Returns:
        E.g. "shakes hands": what stands between the first two subjects without auxiliaries, articles and
        prepositions, or, if that is nothing ("A raccoon and a sloth are shaking hands."), what follows the last one.
        None if that is nothing either.
    """
    span = find_phrase(prompt, relation)
    if span:
        return prompt[slice(*span)]
    places = sorted(span for span in (find_phrase(prompt, name) for name in names) if span)
    if not places:
        return None
    ends = [place[1] for place in places]
    starts = [place[0] for place in places[1:]] + [len(prompt)]
    for end, start in zip([ends[0], ends[-1]], [starts[0], len(prompt)]):
        words = [word.strip(_PUNCTUATION) for word in prompt[end:start].split()]
        words = _trim(words)
        if words:
            return " ".join(words)
    return None


def _trim(words: list[str]) -> list[str]:
    while words and (not words[0] or words[0].lower() in _BEFORE):
        words = words[1:]
    while words and (not words[-1] or words[-1].lower() in _AFTER):
        words = words[:-1]
    return words


def token_span(prompt: str, phrase: str, count_tokens: Callable[[str], int]) -> tuple[int, int] | None:
    """Find the first and last-plus-one token of a phrase, the start token counted as token 0.

    Args:
        prompt: the whole prompt.
        phrase: words of it.
        count_tokens: number of tokens of a text without start, end and padding. Byte-pair encodings of CLIP never
            cross a word border, so counting the prompt's beginnings is exact where spaces part the words.

    Returns:
        None if the phrase is not in the prompt.
    """
    span = find_phrase(prompt, phrase)
    if span is None:
        return None
    return 1 + count_tokens(prompt[: span[0]]), 1 + count_tokens(prompt[: span[1]])
