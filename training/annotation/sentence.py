"""Make the sentence of a target, which holds every name and the relation literally, and find each subject's kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import Formatter, ascii_lowercase

from core.prompt.sentence import make_sentence

from ..data.prompt_spans import find_phrase
from ..data.skeletons import AP10K, COCO
from .options import ANIMAL, HUMANOID, OBJECT, PERSON

_PEOPLE = set(
    "person man woman boy girl child kid baby lady guy people dancer chef nurse teacher doctor farmer fisherman "
    "firefighter policeman soldier player athlete bride groom king queen prince princess grandmother".split()
)
_TOY_PEOPLE = set("gnome doll robot astronaut elf dwarf snowman mermaid puppet figurine fairy wizard pirate".split())
_OBJECTS = set(
    "bicycle bike car truck boat ball chair table umbrella book guitar cup bottle box basket tree flower balloon "
    "skateboard suitcase backpack lamp clock vase hat shoe piano violin phone laptop kite sword".split()
)
_PLACES = ("in ", "on ", "at ", "by ", "under ", "near ", "beside ", "inside ")
_MOST_PLACE_WORDS = 8


def known_kind(name: str, kinds: Mapping[str, str]) -> str:
    """Return the kind of a subject by the options or by its last word; empty if neither says."""
    if name in kinds:
        return kinds[name]
    word = name.lower().split()[-1]
    for kind, words in ((PERSON, _PEOPLE), (HUMANOID, _TOY_PEOPLE), (OBJECT, _OBJECTS)):
        if word in words or word.removesuffix("s") in words:
            return kind
    return ""


def skeletons_of(kind: str) -> tuple[str, ...]:
    """List the orders of joints a kind may have; a humanoid toy has the one that fits better."""
    return {ANIMAL: (AP10K,), PERSON: (COCO,), HUMANOID: (COCO, AP10K)}.get(kind, ())


def predicate_of(relation: str) -> str:
    """Strip a relation of the auxiliary that the sentence supplies."""
    return " ".join(re.sub(r"(?i)^(is|are)\s+", "", relation.strip()).split())


def usable_place(answer: str, names: Sequence[str]) -> str:
    """Check a place as a model words it, or nothing if it is too long, names a subject, or is no place."""
    words = answer.strip().rstrip(".!").split()
    place = " ".join([words[0].lower(), *words[1:]]) if words else ""
    fits = place.startswith(_PLACES) and len(words) <= _MOST_PLACE_WORDS
    return place if fits and not any(find_phrase(place, name) for name in names) else ""


def sentence_of(names: Sequence[str], relation: str, say: str, own: str, place: str) -> tuple[str, str]:
    """Make the sentence, and a note if the triplet's own one could not be used.

    Args:
        names: of the subjects.
        relation: as it is to be said.
        say: a template with {a}, {b}, .., {relation} and {place}; empty writes one.
        own: the triplet's own sentence; used if it says every name and the relation.
        place: where it happens, may be empty.
    """
    predicate = predicate_of(relation)
    if say:
        letters = {chr(ord("a") + index): name for index, name in enumerate(names)}
        written = " ".join(say.format(relation=predicate, place=place, **letters).replace(" .", ".").split())
    else:
        written = make_sentence(names, predicate, place)
        written = f"{written[0].upper()}{written[1:]}."
    if not own:
        return written, ""
    lacking = [words for words in (*names, predicate) if not find_phrase(own, words)]
    if not lacking:
        return own, ""
    return written, f'its sentence "{own}" lacks {", ".join(lacking)}; used instead: "{written}"'


def say_faults(say: str, relation: str) -> list[str]:
    """List what is wrong with a template and a relation, before any picture is read."""
    faults = []
    if not predicate_of(relation):
        faults.append("--relation: expected the words of the relation, e.g. hugging, got nothing.")
    try:
        text = say.format(relation="#", place="", **{letter: letter for letter in "abcdef"})
        if say and "#" not in text:
            faults.append(f'--say "{say}": expected {{relation}} in it, e.g. "A {{a}} is {{relation}} a {{b}}."')
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        faults.append(f'--say "{say}": expected only {{a}} to {{f}}, {{relation}} and {{place}} in braces ({error}).')
    return faults


def wrong_letters(say: str, subjects: int) -> str:
    """Say what a template without `say_faults` lacks or has too many of for so many subjects; empty if it fits."""
    used_letters = {field for _, field, _, _ in Formatter().parse(say) if field} - {"relation", "place"}
    subject_letters = set(ascii_lowercase[:subjects])
    if not say or used_letters == subject_letters:
        return ""
    needed, got = (
        ", ".join(f"{{{letter}}}" for letter in sorted(letters)) or "none"
        for letters in (subject_letters, used_letters)
    )
    return f'--say "{say}": expected {needed} for its {subjects} subjects, got {got}.'
