"""Accuracy of a judge, from pictures that people labelled; and shares corrected for its errors.

labels.jsonl: one object per line: `picture` (a file name in the folder of pictures), `question`, `answer` (yes, no or
unclear) and `by` (who labelled). 100 pictures of each answer are the least that is informative.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.user_files import read_json, read_json_lines

from ...common import agreement, stats
from ...common.errors import UserErrors
from .answers import Answers
from .verdicts import THRESHOLD

ANSWERS = {"yes": True, "no": False, "unclear": None}
ENOUGH = 100  # labels of each answer


@dataclass(frozen=True)
class Label:
    """One person's answer about one picture; `answer` is None where it is unclear."""

    picture: Path
    question: str
    answer: bool | None
    by: str = ""


@dataclass(frozen=True)
class JudgeAccuracy:
    """A judge against people.

    Attributes:
        sensitivity: share of the pictures labelled yes that the judge answers yes.
        specificity: share of those labelled no that it answers no.
        auc: chance that p of a yes is above p of a no.
        kappa: of the judge and the labels.
        kappa_people: of two people who labelled the same pictures; None with one person.
        unclear: labels left out because a person could not tell.
        disputed: pictures left out because people disagree.
        unanswered: pictures left out because the judge cannot answer such a question.
        judge: the judge's facts.
    """

    sensitivity: stats.Estimate
    specificity: stats.Estimate
    auc: float | None
    kappa: float | None
    kappa_people: float | None
    unclear: int
    disputed: int
    unanswered: int
    judge: dict[str, Any]

    @property
    def informative(self) -> bool:
        """Whether shares can be corrected at all."""
        return agreement.corrected_share(0.5, self.sensitivity.value, self.specificity.value) is not None

    def table(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> JudgeAccuracy:
        """Return the accuracy.json of an earlier `judge --labels`.

        Raises:
            UserErrors: not such a file.
        """
        try:
            facts = read_json(path)["accuracy"]
            rates = {key: stats.Estimate(**facts[key]) for key in ("sensitivity", "specificity")}
            return cls(**{**facts, **rates})
        except (ValueError, KeyError, TypeError) as error:
            raise UserErrors(
                f"--judge-accuracy {path}: expected the accuracy.json that python -m training.evaluate judge "
                f"--labels writes ({error})."
            ) from error


def read_labels(path: Path, pictures: Path) -> list[Label]:
    """Read labels.jsonl.

    Raises:
        UserErrors: everything that is wrong with it and every picture that is missing.
    """
    try:
        lines, faults = read_json_lines(path)
    except ValueError as error:
        raise UserErrors(f"--labels {error}") from error
    labels = []
    for number, facts in lines.items():
        where = f"{path}, line {number}"
        try:
            picture, question = facts["picture"], facts["question"]
            if not isinstance(question, str):
                raise TypeError(f"question: {question!r}")
            label = Label(pictures / picture, question, ANSWERS[facts["answer"]], str(facts.get("by", "")))
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f'{where}: expected {{"picture", "question", "answer": yes, no or unclear}} ({error!r}).')
            continue
        if not label.picture.is_file():
            faults.append(f"{where}: {label.picture} is missing.")
        labels.append(label)
    if not labels and not faults:
        faults.append(f"{path}: no label in it.")
    if faults:
        raise UserErrors(faults)
    return labels


def agreed_answers(labels: Sequence[Label]) -> tuple[dict[tuple[Path, str], bool], int, int, float | None]:
    """Collect the answers on which people agree.

    Returns:
        (picture, question) to the answer, number of unclear labels, number of disputed pictures, kappa of the two
        people with most labels (None with one).
    """
    by_item: dict[tuple[Path, str], dict[str, bool]] = {}
    for label in labels:
        if label.answer is not None:
            by_item.setdefault((label.picture, label.question), {})[label.by] = label.answer
    disputed = [item for item, votes in by_item.items() if len(set(votes.values())) > 1]
    counts: dict[str, int] = {}
    for label in labels:
        counts[label.by] = counts.get(label.by, 0) + 1
    people = sorted(counts, key=lambda person: (-counts[person], person))[:2]
    both = [votes for votes in by_item.values() if all(person in votes for person in people)]
    people_agree = None
    if len(people) == 2 and both:
        people_agree = agreement.kappa([votes[people[0]] for votes in both], [votes[people[1]] for votes in both])
    answers = {item: next(iter(votes.values())) for item, votes in by_item.items() if item not in disputed}
    return answers, sum(label.answer is None for label in labels), len(disputed), people_agree


def measure_judge(
    labels: Sequence[Label], answers: Answers, progress: Callable[[Sequence], Sequence] = lambda items: items
) -> tuple[JudgeAccuracy, dict[tuple[Path, str], float]]:
    """Ask the judge the questions that people labelled.

    Returns:
        Its accuracy, and p of every picture and question it answered.

    Raises:
        UserErrors: no picture labelled yes, or none labelled no, that the judge answered.
    """
    truth, unclear, disputed, people = agreed_answers(labels)
    replies = {item: answers.yes(*item) for item in progress(list(truth))}
    probabilities = {item: reply[0] for item, reply in replies.items() if reply is not None}
    positive = [probabilities[item] > THRESHOLD for item in probabilities if truth[item]]
    negative = [probabilities[item] <= THRESHOLD for item in probabilities if not truth[item]]
    lacking = [word for word, rows in (("yes", positive), ("no", negative)) if not rows]
    if lacking:
        raise UserErrors(
            f"--labels: sensitivity and specificity need pictures labelled yes and no; none is labelled "
            f"{' or '.join(lacking)} (of {len(truth)}, {len(truth) - len(probabilities)} unanswered). Label at least "
            f"{ENOUGH} of each."
        )
    accuracy = JudgeAccuracy(
        stats.wilson(sum(positive), len(positive)),
        stats.wilson(sum(negative), len(negative)),
        agreement.auc(list(probabilities.values()), [truth[item] for item in probabilities]),
        agreement.kappa([p > THRESHOLD for p in probabilities.values()], [truth[item] for item in probabilities]),
        people,
        unclear,
        disputed,
        len(truth) - len(probabilities),
        dict(answers.judge.facts),
    )
    return accuracy, probabilities


def corrected(
    values: Sequence[float], cases: Sequence[Hashable], accuracy: JudgeAccuracy, seed: int = 0
) -> stats.Estimate | None:
    """Correct a share of verdicts for the judge's errors; its interval is a bootstrap over cases and labels.

    Args:
        values: the judge's verdicts, 0 or 1.
        cases: the case of each.
        accuracy: of the judge.
        seed: seed of the resamples.

    Returns:
        None for an uninformative judge (sensitivity + specificity <= 1.2).
    """
    means = np.array(list(stats.case_means(values, cases).values()))
    value = agreement.corrected_share(float(means.mean()), accuracy.sensitivity.value, accuracy.specificity.value)
    if value is None:
        return None
    rng = np.random.default_rng((seed, 1))
    rates = [
        rng.binomial(rate.samples, rate.value, stats.RESAMPLES) / rate.samples
        for rate in (accuracy.sensitivity, accuracy.specificity)
    ]
    shares = means[stats.resampled_rows(len(means), seed)].mean(1)
    resampled = [agreement.corrected_share(*row) for row in zip(shares, *rates)]
    low, high = np.percentile([one for one in resampled if one is not None], stats.QUANTILES).tolist()
    return stats.Estimate(value, low, high, len(means), len(values))


def accuracy_text(accuracy: JudgeAccuracy) -> str:
    """Return the table, Markdown."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    positive, negative = accuracy.sensitivity, accuracy.specificity
    lines = [
        "| | share [95 %] | pictures |",
        "|---|---|---|",
        f"| sensitivity: says yes where people say yes | {positive.text(100)} % | {positive.samples} |",
        f"| specificity: says no where people say no | {negative.text(100)} % | {negative.samples} |",
        f"| AUC of p | {number(accuracy.auc)} | {positive.samples + negative.samples} |",
        f"| kappa of judge and people | {number(accuracy.kappa)} | {positive.samples + negative.samples} |",
        f"| kappa of two people | {number(accuracy.kappa_people)} | |",
        "",
        f"Left out: {accuracy.unclear} unclear labels, {accuracy.disputed} disputed pictures, {accuracy.unanswered} "
        "that the judge cannot answer.",
        "Judge: " + ", ".join(f"{key} {value}" for key, value in accuracy.judge.items()) + ".",
    ]
    if not accuracy.informative:
        lines.append("This judge does not tell: sensitivity + specificity is at most 1.2; no share is corrected by it.")
    few = [word for word, rate in (("yes", positive), ("no", negative)) if rate.samples < ENOUGH]
    if few:
        lines.append(f"Few labels: fewer than {ENOUGH} pictures are labelled {' and '.join(few)}; see the intervals.")
    return "\n".join(lines) + "\n"
