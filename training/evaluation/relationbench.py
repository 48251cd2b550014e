"""RelationBench (DreamRelation, arXiv:2410.23280): its 25 templates, filled with a user's subjects.

The paper measures 44 objects of DreamBench and CustomConcept101 in 100 cases, single and multi together as we read it;
which objects met which template is not published. Here each template meets four subjects, or four ordered pairs, in an
order that depends on nothing but the subjects' names: 25 x 4 = 100, and every subject comes up equally often.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

from core.user_files import visible

from ..common.errors import UserErrors
from ..common.image_files import PICTURES
from .benchmarks.lines import relative

CASES = 4
SINGLE_BOX = ((0.25, 0.25, 0.75, 0.75),)
PAIR_BOXES = ((0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75))  # MS-Diffusion's defaults
_BLANK = "{ }"
_TABLES = {  # the paper's tables 1, 2, 3 by the set of the prompts: a key of relationbench.json, the group of its rows
    "": ("published", ""),
    "relationbench": ("published", ""),
    "dreambench": ("published_dreambench", "single"),
    "customconcept101": ("published_customconcept101", "multi"),
}


@cache
def relationbench() -> dict[str, Any]:
    """Return the shipped facts: `templates` (`prompt` and its predicate, `relation`), `settings`, `published`."""
    return json.loads(Path(__file__).with_name("relationbench.json").read_text(encoding="utf-8"))


def published_rows(sets: Iterable[str]) -> tuple[dict[tuple[str, str], dict[str, float]], str]:
    """Return the paper's rows that pictures of these sets may stand beside, and where they are printed.

    Args:
        sets: the set that each case is of; empty for cases of this benchmark.

    Returns:
        (method, group) to metric to score, and a note; nothing for another set or several at once.
    """
    tables = {_TABLES.get(name, ("", "")) for name in sets}
    key, group = tables.pop() if len(tables) == 1 else ("", "")
    if not key:
        return {}, ""
    table = relationbench()[key]
    metrics, rows = table["metrics"], table["rows"]
    return {(row["method"], row.get("group", group)): dict(zip(metrics, row["scores"])) for row in rows}, table["note"]


def find_subjects(folder: Path) -> list[tuple[str, Path]]:
    """List names and photographs of a folder of subjects.

    Args:
        folder: one picture per subject, or one folder of pictures per subject, of which the first counts. The file's or
            folder's name is the subject's, without a number at its end: `plushie_bear2.jpg` is "plushie bear".

    Raises:
        UserErrors: not a folder, or no subjects in it.
    """
    subjects = []
    for path in visible(folder):
        inside = visible(path) if path.is_dir() else [path]
        photographs = [file for file in inside if file.suffix.lower() in PICTURES and file.is_file()]
        stem = unicodedata.normalize("NFC", path.name if path.is_dir() else path.stem)  # a Mac's accents stand apart
        name = " ".join(re.sub(r"[ _-]*\d+$", "", stem).replace("_", " ").split())
        if photographs and name:
            subjects.append((name, photographs[0]))
    if not subjects:
        raise UserErrors(
            f"--subjects {folder}: expected a folder with one picture (png, jpg, webp, bmp) or one folder of "
            "pictures for each subject, named as the prompt should say it, e.g. plushie_bear.jpg; found none."
        )
    return subjects


def cases_of_templates(plan: str) -> list[int]:
    """Count the cases that each of the 25 templates gets.

    Args:
        plan: "100" gives each template 4; "AxB" spreads A cases over the 14 single templates and B over the 11 pairs.

    Raises:
        UserErrors: neither.
    """
    if plan == "100":
        return [CASES] * len(relationbench()["templates"])
    single, cross, pair = plan.partition("x")
    if not cross or not single.isdigit() or not pair.isdigit() or not int(single) + int(pair):
        raise UserErrors(
            f"--cases {plan}: expected 100 (four of each template) or a number of single and one of pair "
            "cases, e.g. 100x100."
        )
    kinds = [template["prompt"].count(_BLANK) for template in relationbench()["templates"]]
    totals, templates_so_far, counts = {1: int(single), 2: int(pair)}, {1: 0, 2: 0}, []
    for kind in kinds:
        share, rest = divmod(totals[kind], kinds.count(kind))
        counts.append(share + (templates_so_far[kind] < rest))
        templates_so_far[kind] += 1
    return counts


def cases(subjects: list[tuple[str, Path]], seeds: int, plan: str = "100") -> Iterator[dict[str, Any]]:
    """Make the lines of the prompts file, without the folder of the references.

    Args:
        subjects: names and photographs; subjects of one name are never put into one picture.
        seeds: pictures of each case.
        plan: see `cases_of_templates`; a template never meets the same subjects twice.

    Yields:
        `picture`, `prompt`, `relation`, `references`, `names`, `boxes`, `template` (from 1), `seed` (from 0), and
        `symmetric` for pairs.
    """
    pairs = [pair for pair in permutations(subjects, 2) if pair[0][0] != pair[1][0]]
    choices = {1: [(subject,) for subject in subjects], 2: pairs}
    for groups in choices.values():
        random.Random(0).shuffle(groups)
    used = dict.fromkeys(choices, 0)
    number = 0
    templates = zip(relationbench()["templates"], cases_of_templates(plan))
    for index, (template, case_count) in enumerate(templates, 1):
        subject_count = template["prompt"].count(_BLANK)
        facts = {"boxes": [list(box) for box in (SINGLE_BOX if subject_count == 1 else PAIR_BOXES)]}
        if "symmetric" in template:
            facts["symmetric"] = template["symmetric"]
        for _ in range(min(case_count, len(choices[subject_count]))):
            group = choices[subject_count][used[subject_count] % len(choices[subject_count])]
            used[subject_count] += 1
            prompt = template["prompt"]
            for name, _photograph in group:
                prompt = prompt.replace(_BLANK, name, 1)
            for seed in range(seeds):
                number += 1
                yield {
                    "picture": f"{number:04d}.png",
                    "prompt": prompt,
                    "relation": template["relation"],
                    "references": [photograph for _name, photograph in group],
                    "names": [name for name, _ in group],
                    **facts,
                    "template": index,
                    "seed": seed,
                }


def prompts_text(folder: Path, beside: Path, seeds: int, plan: str = "100") -> str:
    """Return the prompts file of a folder of subjects.

    Args:
        folder: see `find_subjects`.
        beside: the folder the file will be in; references are written relative to it.
        seeds: pictures of each case.
        plan: see `cases_of_templates`.

    Raises:
        UserErrors: no subjects; no such plan.
    """
    lines = []
    for case in cases(find_subjects(folder), seeds, plan):
        case["references"] = [relative(path, beside) for path in case["references"]]
        lines.append(json.dumps(case, ensure_ascii=False))
    return "\n".join(lines) + "\n"
