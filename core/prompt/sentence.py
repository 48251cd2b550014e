"""Make a prompt from the names of a scene's subjects and a relation: "a cat is hugging a plushie bear in a meadow"."""

from __future__ import annotations

from collections.abc import Sequence

from .articles import with_article

_AUXILIARIES = ("is ", "are ")


def make_sentence(names: Sequence[str], relation: str = "", place: str = "") -> str:
    """Write the sentence of a scene.

    Args:
        names: of the subjects in order; the first one acts on the others.
        relation: what happens, e.g. "hugging" or "is hugging with"; empty where the subjects are just together.
        place: what follows, e.g. "in a meadow"; may be empty.

    Returns:
        One subject: "a cat in a meadow". Two: "a cat is hugging a bear in a meadow", or "a cat and a bear". More: "a
        cat, a dog and a bear are hugging".

    Raises:
        ValueError: no name, or an empty one.
    """
    names = [" ".join(name.split()) for name in names]
    if not names or not all(names):
        raise ValueError(
            f"names: expected the words that name each subject, got {names}. Fill in name of each Subject."
        )
    subjects = [with_article(name) for name in names]
    relation = " ".join(relation.split())
    together = subjects[0] if len(subjects) == 1 else f"{', '.join(subjects[:-1])} and {subjects[-1]}"
    if not relation:
        sentence = together
    elif len(subjects) == 2:
        sentence = f"{subjects[0]} {_with_auxiliary(relation, 'is')} {subjects[1]}"
    else:
        sentence = f"{together} {_with_auxiliary(relation, 'is' if len(subjects) == 1 else 'are')}"
    return f"{sentence} {' '.join(place.split())}".strip()


def _with_auxiliary(relation: str, auxiliary: str) -> str:
    """Begin a relation with "is" or "are"; one that has its own verb keeps it, in the right number."""
    for own in _AUXILIARIES:
        if relation.lower().startswith(own):
            return f"{auxiliary} {relation[len(own) :]}"
    first = relation.split()[0].lower()
    return f"{auxiliary} {relation}" if first.endswith("ing") or "-" in first else relation
