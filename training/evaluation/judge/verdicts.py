"""Turn answers into verdicts: the relation happened, was reversed, subjects touch, are present; and the judge's noise.

Without every subject present the relation did not happen (the dependency of DSG, arXiv:2310.18235). A "Yes" to the
question with the subjects exchanged that is surer than the first is a reversal. The mirrored picture must give the same
answer; how often it does not is the judge's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ..prompts import Entry
from .answers import Answers
from .questions import CONTACT, HAPPENED, PRESENT, REVERSED, questions_of

THRESHOLD = 0.5  # of p; another one may only be chosen on labels that are then left out of the report


@dataclass(frozen=True)
class Verdict:
    """Verdicts on one picture; None without a question or an answer.

    Attributes:
        happened: 1 if the relation happened between subjects that are all present, else 0.
        probability: p of the question whether it happened, alone.
        reversed: 1 if it happened the other way round; for directed relations.
        contact: 1 if the subjects touch; for relations that touch.
        present: share of the different names that are present.
        questions: share of the line's own questions answered as wanted, a child counting only with its parents.
        mirror_differs: 1 if the mirrored picture gets the other answer.
        mass: probability that the first answer token is Yes or No at all, mean over the questions.
    """

    happened: float | None = None
    probability: float | None = None
    reversed: float | None = None
    contact: float | None = None
    present: float | None = None
    questions: float | None = None
    mirror_differs: float | None = None
    mass: float | None = None

    def table(self) -> dict[str, float | None]:
        return asdict(self)


def judge_pictures(
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    answers: Answers,
    mirror: bool = True,
    progress: Callable[[Sequence], Sequence] = lambda items: items,
) -> list[Verdict]:
    """Judge every picture.

    Args:
        entries, predicates: N each.
        answers: the judge.
        mirror: ask about the mirrored picture as well, one more call for each picture.
        progress: wraps the iteration, as `tqdm` does.
    """
    return [
        judge_picture(entry, predicate, answers, mirror)
        for entry, predicate in progress(list(zip(entries, predicates)))
    ]


def judge_picture(entry: Entry, predicate: str | None, answers: Answers, mirror: bool = True) -> Verdict:
    """See `judge_pictures`."""
    replies: dict[str, list[float]] = {}
    masses: list[float] = []
    for question in questions_of(entry, predicate):
        reply = answers.yes(entry.picture, question.text)
        if reply is not None:
            replies.setdefault(question.kind, []).append(reply[0])
            masses.append(reply[1])
    own = _own_questions(entry, answers, masses)
    present = [p > THRESHOLD for p in replies.get(PRESENT, ())]
    p = replies.get(HAPPENED, [None])[0]
    exchanged = replies.get(REVERSED, [None])[0]
    contact = replies.get(CONTACT, [None])[0]
    differs = None
    if mirror and p is not None:
        question = questions_of(entry, predicate)[0].text
        reply = answers.yes(entry.picture, question, mirrored=True)
        differs = None if reply is None else float((reply[0] > THRESHOLD) != (p > THRESHOLD))
    return Verdict(
        happened=None if p is None else float(p > THRESHOLD and all(present)),
        probability=p,
        reversed=None if exchanged is None or p is None else float(exchanged > THRESHOLD and exchanged > p),
        contact=None if contact is None else float(contact > THRESHOLD),
        present=sum(present) / len(present) if present else None,
        questions=own,
        mirror_differs=differs,
        mass=sum(masses) / len(masses) if masses else None,
    )


def _own_questions(entry: Entry, answers: Answers, masses: list[float]) -> float | None:
    """Return the share of a line's own questions answered as wanted; those without an answer are left out."""
    is_right: dict[int, bool] = {}
    for number, question in enumerate(entry.questions):
        reply = answers.yes(entry.picture, question.text)
        if reply is not None:
            masses.append(reply[1])
            is_right[number] = (reply[0] > THRESHOLD) == question.wanted and all(
                is_right.get(parent, False) for parent in question.parents
            )
    return sum(is_right.values()) / len(is_right) if is_right else None
