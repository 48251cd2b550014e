"""The words of a prompt that say what the subjects do, for scores that leave the subjects out (DreamRelation's CLIP-R,
arXiv:2410.23280). Without a parser: what stands between the first two names, else what follows the last one."""

from __future__ import annotations

from collections.abc import Sequence

from .wording import find_names

_BEFORE = {"is", "are", "was", "were", "be", "and", "a", "an", "the", "its", "their", "who", "that", "together"}
_AFTER = {"a", "an", "the", "with", "his", "her", "its", "another", "to", "at", "on", "by", "of", "and", "in"}
# A word that begins the place where it happens; what is after it says nothing of the relation.
_PLACE = {"in", "on", "at", "under", "inside", "near", "by", "beside", "before", "behind", "through", "during",
          "against", "while", "across", "down", "along"}  # fmt: skip
_PUNCTUATION = ".,;:!?\"'()"


def find_predicate(prompt: str, names: Sequence[str]) -> str:
    """Return the predicate of a prompt, e.g. "hugging" of "a fox is hugging a bear in a meadow"; empty if there is
    none.

    Args:
        prompt: the sentence.
        names: the subjects' words in it.
    """
    spans = sorted(span for span in find_names(prompt, names) if span)
    if not spans:
        return ""
    if len(spans) > 1:
        between = _trimmed(prompt[spans[0][1] : spans[1][0]].split())
        if between:
            return " ".join(between)
    after = _trimmed(prompt[spans[-1][1] :].split(), _AFTER - _PLACE)
    place = next((index for index, word in enumerate(after) if index and word.lower() in _PLACE), len(after))
    return " ".join(after[:place])


def _trimmed(words: Sequence[str], last: set[str] = _AFTER) -> list[str]:
    """Strip punctuation, leading auxiliaries and trailing articles."""
    bare_words = [word.strip(_PUNCTUATION) for word in words]
    while bare_words and bare_words[0].lower() in _BEFORE | {""}:
        bare_words = bare_words[1:]
    while bare_words and bare_words[-1].lower() in last | {""}:
        bare_words = bare_words[:-1]
    return bare_words
