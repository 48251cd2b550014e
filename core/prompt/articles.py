"""English articles: "a cat", "an owl", "a unicorn", "Anna"."""

from __future__ import annotations

import re

# words that already say which one is meant: such a name gets no article
_DETERMINERS = {"a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our", "their",
                "one", "two", "three", "some", "several"}  # fmt: skip
_VOWEL = re.compile(r"[aeiou]|hour|heir|honest|hono", re.IGNORECASE)  # or a silent h
# spelled with a vowel, spoken with "y" or "w": unicorn (not uninvited, unidentified), ukulele, useful, European, one
_NO_VOWEL = re.compile(r"uni(?!n|m|d)|uku|ura|us[eu]|ute|uto|eu|ewe|once\b|one\b|ufo|u[^a-z]|u$", re.IGNORECASE)


def indefinite(word: str) -> str:
    """Return "a" or "an", by how the word that follows is spoken."""
    return "an" if _VOWEL.match(word) and not _NO_VOWEL.match(word) else "a"


def with_article(name: str, definite: bool = False) -> str:
    """Put an article before a common noun; proper names and names with a determiner stay as they are.

    Args:
        name: words, not empty.
        definite: "the" instead of "a" or "an".
    """
    first = name.split()[0]
    if first.lower() in _DETERMINERS or first[0].isupper() or not first[0].isascii():
        return name
    return f"{'the' if definite else indefinite(first)} {name}"


def correct_articles(text: str) -> str:
    """Turn "a owl" into "an owl" wherever it stands."""
    return re.sub(r"\b([Aa]) (?=(\w+))", lambda match: f"{match[1]}{indefinite(match[2])[1:]} ", text)
