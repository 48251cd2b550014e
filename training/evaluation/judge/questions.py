"""Make a case's questions: did the relation happen, the right way round, do they touch, is everyone present."""

from __future__ import annotations

from dataclasses import dataclass

from core.prompt.articles import with_article

from ..prompts import Entry
from ..relationbench import relationbench

HAPPENED, REVERSED, CONTACT, PRESENT = "happened", "reversed", "contact", "present"
# Predicates in which the subjects touch; in their gerund, without the words that follow.
TOUCHING = (
    "hugging",
    "kissing",
    "carrying",
    "shaking hands",
    "holding hands",
    "partner dancing",
    "wrestling",
    "riding",
    "lifting",
    "sitting back to back",
    "high-fiving",
    "dancing with",
)
_VOWELS = "aeiou"
_IRREGULAR = {"has": "having", "does": "doing", "goes": "going"}


@dataclass(frozen=True)
class CaseQuestion:
    """A question about a case.

    Attributes:
        kind: HAPPENED, REVERSED, CONTACT, or PRESENT.
        text: the question.
    """

    kind: str
    text: str


def questions_of(entry: Entry, predicate: str | None) -> list[CaseQuestion]:
    """Return the questions of a case; none without a predicate or names.

    Args:
        entry: one or more subjects' names; a relation is asked of the first two.
        predicate: e.g. "hugging", "shakes hands with".
    """
    if not predicate or not entry.names:
        return []
    first, *others = entry.names
    doing, the_first = gerund(predicate), with_article(first, definite=True)
    predicate_facts = facts_of(predicate)
    present = [CaseQuestion(PRESENT, _is_present(name)) for name in dict.fromkeys(entry.names)]
    if not others:
        return [CaseQuestion(HAPPENED, f"Is {the_first} {doing} in this picture?"), *present]
    second = others[0]
    the_second = with_article(second, definite=True)
    if first == second:
        questions = [CaseQuestion(HAPPENED, f"Is {with_article(first)} {doing} another {second} in this picture?")]
    else:
        questions = [CaseQuestion(HAPPENED, f"Is {the_first} {doing} {the_second} in this picture?")]
        symmetric = entry.symmetric if entry.symmetric is not None else predicate_facts.get("symmetric")
        if symmetric is False:
            questions.append(CaseQuestion(REVERSED, f"Is {the_second} {doing} {the_first} in this picture?"))
    if predicate_facts.get("contact", doing.startswith(TOUCHING)):
        pair = f"the two {first}s" if first == second else f"{the_first} and {the_second}"
        questions.append(CaseQuestion(CONTACT, f"Do {pair} touch each other in this picture?"))
    return questions + present


def facts_of(predicate: str) -> dict[str, bool]:
    """Look up a predicate of RelationBench: whether it is symmetric, and whether the subjects touch."""
    for template in relationbench()["templates"]:
        if predicate in (template["relation"], template.get("gerund")):
            return {key: template[key] for key in ("symmetric", "contact") if key in template}
    return {}


def _is_present(name: str) -> str:
    """Ask for a name: "Is there a cat in this picture?", "Is Anna in this picture?"."""
    with_its_article = with_article(name)
    return f"Is {name if name == with_its_article else f'there {with_its_article}'} in this picture?"


def gerund(predicate: str) -> str:
    """Return a predicate's first verb as "-ing": "hugs" to "hugging", "shakes hands with" to "shaking hands with".

    A predicate that holds an "-ing" word already ("partner dancing with") stays as it is; the question brings its "is".
    """
    words = predicate.split()
    if len(words) > 1 and words[0].lower() in ("is", "are"):
        return " ".join(words[1:])
    if not words or any(word.endswith("ing") and len(word) > 4 for word in words):
        return predicate
    return " ".join([_ing(words[0]), *words[1:]])


def _ing(verb: str) -> str:
    """Add "-ing" by the rules of spelling, to the third person or the infinitive."""
    if verb.lower() in _IRREGULAR:
        return _IRREGULAR[verb.lower()]
    if verb.endswith(("sses", "shes", "ches", "xes", "zzes")):
        verb = verb[:-2]
    elif verb.endswith("ies") and len(verb) > 4:
        verb = verb[:-3] + "y"
    elif verb.endswith("s") and not verb.endswith("ss"):
        verb = verb[:-1]
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1] + "ing"
    vowels = [letter in _VOWELS for letter in verb]
    if len(verb) > 2 and vowels[-3:] == [False, True, False] and sum(vowels) == 1 and verb[-1] not in "wxy":
        return verb + verb[-1] + "ing"
    return verb + "ing"
