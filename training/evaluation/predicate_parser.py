"""Find the relation of a prompt in its own words, by spaCy's dependency parse: the text that CLIP-R compares with.

DreamRelation (arXiv:2410.23280, RelationBench) takes the predicate "by spaCy" and names neither the model nor the rule.
Here: the main verb and what belongs to it, up to the second subject ("playing chess with"), or with its object
("lifting weights"); never a subject, never the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.errors import UserErrors
from ..data.prompt_spans import find_phrase, find_predicate

MODEL = "en_core_web_sm"
# Parsed in the subjects' place: "a plushie bear" and "a toy duck" read as verbs.
_STAND_INS = ("dog", "cat", "man", "girl", "boy", "bird")
_BEFORE_NOUN = {"det", "amod", "compound", "poss", "nummod"}


@dataclass(frozen=True)
class Word:
    """A parsed word.

    Attributes:
        text, start: the word in the parsed text, and its first character there.
        kind: spaCy's coarse part of speech: VERB, AUX, NOUN, ...
        role: spaCy's dependency: nsubj, dobj, prt, ...
        head: index of the word it depends on; its own for the root.
    """

    text: str
    start: int
    kind: str
    role: str
    head: int


class Parser:
    """A spaCy pipeline.

    Args:
        model: name of an installed pipeline, or its folder.

    Raises:
        UserErrors: spaCy or the pipeline is not installed; says the command.
    """

    def __init__(self, model: str = MODEL) -> None:
        try:
            import spacy
        except ImportError as error:
            raise UserErrors(
                "CLIP-R needs each prompt's predicate, and spaCy, which finds it, is not installed. Either "
                "give 'relation' in every line of the prompts file, or: pip install spacy && python -m spacy "
                f"download {MODEL}"
            ) from error
        try:
            self.pipeline: Any = spacy.load(model)
        except OSError as error:
            raise UserErrors(
                f"--spacy {model}: spaCy has no such pipeline. Either give 'relation' in every line of the "
                f"prompts file, or: python -m spacy download {model} (or name an installed one or its folder)"
            ) from error

    def predicate(self, prompt: str, names: Sequence[str], subjects: int) -> str | None:
        """See `predicate_of`; without a verb ("a lion and a bear hug"), the words after or between the names."""
        text, places = stand_in(prompt, names)
        words = [Word(token.text, token.idx, token.pos_, token.dep_, token.head.i) for token in self.pipeline(text)]
        return predicate_of(words, places, subjects) or find_predicate(prompt, names)


def stand_in(prompt: str, names: Sequence[str]) -> tuple[str, list[int]]:
    """Put a plain noun in each subject's place; return where these begin in the new text too.

    Args:
        prompt: e.g. "A plushie bear hugs a toy duck."
        names: in any order; one that the prompt does not say is left out.

    Returns:
        E.g. "A dog hugs a cat." and [2, 13].
    """
    spans: list[tuple[int, int]] = []
    for name in names:
        search_from = 0
        while (span := find_phrase(prompt[search_from:], name)) is not None:
            candidate = (search_from + span[0], search_from + span[1])
            if all(candidate[1] <= start or end <= candidate[0] for start, end in spans):
                spans.append(candidate)
                break
            search_from = candidate[1]
    text, places, position = "", [], 0
    for noun, (start, end) in zip(_STAND_INS, sorted(spans)):
        text += prompt[position:start]
        places.append(len(text))
        text, position = text + noun, end
    return text + prompt[position:], places


def predicate_of(words: Sequence[Word], places: Sequence[int], subjects: int) -> str | None:
    """Return the predicate of a parsed prompt.

    Args:
        words: all words of it.
        places: first characters of the subjects' nouns; empty without names.
        subjects: how many there are. Without names, the first noun with an article after the verb is taken for the
            second subject where there are two or more.

    Returns:
        Words of the prompt, e.g. "playing chess with"; None where there is no verb.
    """
    verb = _main_verb(words)
    if verb is None:
        return None
    subject_words = {index for index, word in enumerate(words) if word.start in places}
    if not subject_words and subjects > 1:
        subject_words = {
            word.head
            for index, word in enumerate(words)
            if index > verb and word.role == "det" and words[word.head].kind in ("NOUN", "PROPN")
        }
    first = verb
    while first and first - 1 not in subject_words and _leads(words, first - 1, verb):
        first -= 1
    other = next((index for index in sorted(subject_words) if index > verb and _serves(words, index, verb)), None)
    if other is not None:
        return _text(words[first : min([other, *_modifiers(words, other)])])
    included = set(range(first, verb + 1))
    for index, word in enumerate(words):
        if word.head == verb and index > verb and word.role in ("prt", "dobj") and index not in subject_words:
            included |= {index, *_modifiers(words, index)}
    return _text([words[index] for index in sorted(included)])


def _modifiers(words: Sequence[Word], noun: int) -> list[int]:
    """List the words before a noun that belong to it: its article, adjectives, numbers."""
    return [index for index, word in enumerate(words[:noun]) if word.head == noun and word.role in _BEFORE_NOUN]


def _text(words: Sequence[Word]) -> str:
    """Return the words with the spaces that stood between them: "high-fiving" is three."""
    text = words[0].text
    for before, word in zip(words, words[1:]):
        text += ("" if before.start + len(before.text) == word.start else " ") + word.text
    return text


def _main_verb(words: Sequence[Word]) -> int | None:
    """Return the root, or, where that is "is", the first full verb after it."""
    root = next((index for index, word in enumerate(words) if word.head == index), 0)
    return next((index for index, word in enumerate(words) if index >= root and word.kind == "VERB"), None)


def _leads(words: Sequence[Word], index: int, verb: int) -> bool:
    """Whether a word before the verb is a part of it: "partner dancing", "high-fiving"; a subject has an article."""
    word = words[index]
    if word.start + len(word.text) == words[index + 1].start:
        return True
    has_article = any(other.head == index and other.role == "det" for other in words)
    return word.head == verb and word.kind == "NOUN" and not has_article


def _serves(words: Sequence[Word], index: int, verb: int) -> bool:
    """Whether a word belongs to the verb itself and not to a verb of another clause."""
    while index != verb and words[index].head != index:
        index = words[index].head
        if index != verb and words[index].kind == "VERB":
            return False
    return index == verb
