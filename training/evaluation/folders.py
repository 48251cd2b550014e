"""Measure folders of pictures into table.md, scores.json and sheet.png; several are compared pair by pair."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.user_files import read_json_lines

from ..common.atomic_io import check_writable, write_text
from ..common.cli import say
from ..common.errors import UserErrors
from ..common.sheets import save_picture
from .columns import SCORE_COLUMNS, estimates
from .comparison import compare, comparison_facts, comparison_text
from .measurement import Measured, find_predicates, measure_pictures
from .models import NO_WORLDS, Models, Worlds, all_or_faults, model_steps
from .prompts import Entry, read_prompts
from .report import report_json, summaries, table_text
from .sections import picture_facts, sections_facts, sections_text
from .sheet import contact_sheet

ANSWERS = "answers.jsonl"


def measure_folders(
    folders: Mapping[str, Path], options: argparse.Namespace, worlds: Worlds = NO_WORLDS
) -> dict[str, Measured]:
    """Measure folders of pictures of one prompts file with the same models, and write the reports.

    Args:
        folders: name to folder; the first is the one that is reported, the others are compared with it.
        options: of `training.evaluate`.
        worlds: worlds with exact truth, and models that go by a name of their own.

    Raises:
        UserErrors: of the prompts file, the pictures, the models, all in one report.
    """
    # Read the prompts file once for each folder, then open the models, so that all faults come in one report.
    if options.batch < 1:
        raise UserErrors(f"--batch {options.batch}: expected at least 1.")
    missing = "skip" if options.partial else "fault"
    _, *entries = all_or_faults(
        lambda: check_writable(options.out),
        *(lambda folder=folder: read_prompts(options.prompts, folder, missing) for folder in folders.values()),
    )
    first_entries = entries[0]
    predicates, exact, *parts = all_or_faults(
        lambda: find_predicates(first_entries, options.spacy),
        lambda: _count_exactly(dict(zip(folders, entries)), options, worlds),
        *model_steps(options, worlds),
    )

    # Measure each folder with the predicates of the first one.
    models = Models(*parts)
    by_line = {entry.line: predicate for entry, predicate in zip(first_entries, predicates)}
    measured: dict[str, Measured] = {}
    for name, method_entries in zip(folders, entries):
        if len(folders) > 1:
            say(f"measuring {name}")
        words = [by_line.get(entry.line) or entry.relation or None for entry in method_entries]
        measured[name] = measure_pictures(method_entries, words, models, options, options.out / ANSWERS)

    # Write the reports.
    text, facts = report_of(measured, models.accuracy, exact)
    text = _missing_text(measured, len(read_json_lines(options.prompts)[0])) + text
    write_text(options.out / "table.md", text)
    write_text(options.out / "scores.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    whole = next(iter(measured.values()))
    save_picture(contact_sheet(whole.entries, whole.predicates, whole.rows, whole.subjects), options.out / "sheet.png")
    say(text)
    say(f"wrote table.md, scores.json and sheet.png to {options.out}")
    return measured


def report_of(
    measured: Mapping[str, Measured], accuracy: Any, exact: Mapping[str, tuple[str, dict[str, Any]]]
) -> tuple[str, dict[str, Any]]:
    """Write table.md and scores.json of measured folders, with the exact scores of those that have some."""
    (name, first), *others = measured.items()
    exact_text, exact_facts = exact.get(name, ("", {}))
    table = summaries(first.entries, first.rows)
    text = table_text(table, first.encoders) + exact_text + sections_text(first, accuracy)
    facts = json.loads(report_json(table, first.encoders, first.entries, first.predicates, first.rows, exact_facts))
    facts |= sections_facts(first, accuracy)
    for index, picture in enumerate(facts["pictures"]):
        picture |= picture_facts(first, index)
    for other_name, other in others:
        pairs = shared_lines(first, other)
        results = compare(*pairs)
        cases = len({entry.case for entry in pairs[0]})
        text += f"\n**{name} against {other_name}**\n\n{comparison_text(results, name, other_name, cases)}"
        facts.setdefault("against", {})[other_name] = {
            "pairs": len(pairs[0]),
            "cases": cases,
            "measures": comparison_facts(results),
            "groups": {
                group: {key: vars(score) for key, score in row.items()}
                for group, row in estimates(other.entries, other.rows, SCORE_COLUMNS).items()
            },
        }
        if other_name in exact:
            text += f"\n**{other_name}, exactly**\n{exact[other_name][0]}"
            facts["against"][other_name]["exact"] = exact[other_name][1]
    return text, facts


def _count_exactly(
    entries: Mapping[str, list[Entry]], options: argparse.Namespace, worlds: Worlds
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Count the exact scores of every folder, if the options ask for them."""
    if not getattr(options, "exact", False):
        return {}
    return {name: worlds.count_exactly(own) for name, own in entries.items()}


def shared_lines(first: Measured, other: Measured) -> tuple[list[Entry], list[Mapping], list[Mapping]]:
    """Pair the lines that both have, with both rows.

    Raises:
        UserErrors: no line is in both.
    """
    rows = {entry.line: row for entry, row in zip(other.entries, other.rows)}
    both = [(entry, row, rows[entry.line]) for entry, row in zip(first.entries, first.rows) if entry.line in rows]
    if not both:
        raise UserErrors("--against: no line of the prompts file has a picture in both folders.")
    return [entry for entry, _, _ in both], [row for _, row, _ in both], [row for _, _, row in both]


def _missing_text(measured: Mapping[str, Measured], total: int) -> str:
    """Note above the scores the number of pictures that are missing."""
    lacking = {name: total - len(one.entries) for name, one in measured.items() if len(one.entries) < total}
    return "".join(
        f"**{count} of {total} pictures of {name} are missing.** These scores are of the others.\n\n"
        for name, count in lacking.items()
    )
