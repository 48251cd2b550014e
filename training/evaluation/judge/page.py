"""A static page on which a person labels pictures with the keys y, n and u; it makes labels.jsonl in the browser."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from ..benchmarks.lines import relative
from ..prompts import Entry, name_inside
from .questions import HAPPENED, questions_of

_PAGE = Path(__file__).with_name("page.html")


def labelling_page(
    entries: Sequence[Entry],
    predicates: Sequence[str | None],
    beside: Path,
    kind: str = HAPPENED,
    pictures: Path | None = None,
) -> str:
    """Return the page as HTML; it shows pictures by their paths relative to itself and needs no server.

    Args:
        entries, predicates: N each.
        beside: the folder the page will be in.
        kind: the kind of question to be labelled.
        pictures: the folder that labels name pictures in; None: each picture's own.
    """
    items = []
    for entry, predicate in zip(entries, predicates):
        for question in questions_of(entry, predicate):
            if question.kind == kind:
                items.append(
                    {
                        "picture": name_inside(entry.picture, pictures or entry.picture.parent),
                        "question": question.text,
                        "file": relative(entry.picture, beside),
                    }
                )
    data = json.dumps(items, ensure_ascii=False).replace("<", "\\u003c")  # a prompt may not end the script
    title = f"{len(items)} pictures to label"
    return _PAGE.read_text(encoding="utf-8").replace("@TITLE@", html.escape(title)).replace("@ITEMS@", data)
