"""Write the table of scores as Markdown, and everything behind it as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .columns import SCORE_COLUMNS, estimates
from .prompts import Entry
from .relationbench import relationbench
from .scores import METRICS, Score

Scores = Sequence[Mapping[str, float | None]]


def summaries(entries: Sequence[Entry], scores: Scores) -> dict[str, dict[str, Score]]:
    """Average the scores by group and metric; a metric that no picture of a group has is left out.

    Args:
        entries: N pictures.
        scores: N times metric to 100 cos or None.
    """
    table = estimates(entries, scores, SCORE_COLUMNS)
    return {group: {metric: Score.of(estimate) for metric, estimate in row.items()} for group, row in table.items()}


def table_text(table: Mapping[str, Mapping[str, Score]], backbones: Mapping[str, str]) -> str:
    """Return the table as Markdown: means, 95 % intervals, and the paper's numbers below.

    Args:
        table: of `summaries`.
        backbones: "CLIP" and perhaps "DINO" to their names.
    """
    metrics = [metric for metric in METRICS if any(metric in row for row in table.values())]
    lines = ["| " + " | ".join(["", "pictures", "cases", *metrics]) + " |", "|---" * (len(metrics) + 3) + "|"]
    for group, row in table.items():
        most = max(row.values(), key=lambda score: score.pictures)
        cells = [_cell(row.get(metric), most.pictures) for metric in metrics]
        lines.append("| " + " | ".join([group, str(most.pictures), str(most.cases), *cells]) + " |")
    encoders = "; ".join(f"{kind} {name}" for kind, name in backbones.items())
    notes = [
        f"Encoders: {encoders}.",
        "Cosines times 100: mean [95 % bootstrap interval over cases].",
        "CLIP-I and DINO of several subjects: the mean over the references.",
    ]
    if backbones["CLIP"] == "miniworld":
        notes.append("The miniworld's own CLIP: its numbers compare with one another only. There is no DINO of it.")
        return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"
    published = relationbench()["published"]
    for row in published["rows"]:
        published_scores = dict(zip(published["metrics"], row["scores"]))
        cells = ["-" if metric not in published_scores else f"{published_scores[metric]:.1f}" for metric in metrics]
        lines.append("| " + " | ".join([f"*published: {row['method']}, {row['group']}*", "", "", *cells]) + " |")
    notes.append(f"Rows in italics: {published['note']}. Other encoders or subjects are not comparable with them.")
    return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def _cell(score: Score | None, pictures: int) -> str:
    """Write a mean with its interval, and the number of pictures where it is not all of them."""
    if score is None:
        return "-"
    interval = "" if score.low is None else f" [{score.low:.1f}, {score.high:.1f}]"
    return f"{score.mean:.1f}{interval}" + (f" ({score.pictures} pictures)" if score.pictures < pictures else "")


def report_json(
    table: Mapping[str, Mapping[str, Score]],
    backbones: Mapping[str, str],
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    scores: Scores,
    exact: Mapping[str, Any],
) -> str:
    """Write means, intervals, published rows, every picture with predicate and scores, and exact scores if any."""
    pictures: list[dict[str, Any]] = [
        {
            "picture": entry.picture.name,
            "prompt": entry.prompt,
            "predicate": predicate,
            "predicate_from": None if not predicate else "prompts file" if entry.relation else "parsed",
            "references": [path.name for path in entry.references],
            "group": entry.group,
            "case": entry.id,
            "seed": entry.seed,
            "scores": {metric: own[metric] for metric in METRICS if metric in own},
        }
        for entry, predicate, own in zip(entries, predicates, scores)
    ]
    groups = {group: {metric: asdict(score) for metric, score in row.items()} for group, row in table.items()}
    facts = {
        "encoders": dict(backbones),
        "published": relationbench()["published"],
        "groups": groups,
        "pictures": pictures,
    } | ({"exact": dict(exact)} if exact else {})
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
