"""`python -m training.evaluate judge --labels labels.jsonl`, and `judge page` that makes the page to label on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.cli import say
from ...common.errors import UserErrors
from ...common.sheets import INK, PAPER, font, save_picture
from ..measurement import find_predicates
from ..models import DTYPES, NO_WORLDS, Worlds, all_or_faults, open_judge_model
from ..predicate_parser import MODEL
from ..prompts import name_inside, read_prompts
from ..sheet import paste_picture
from .accuracy import Label, accuracy_text, agreed_answers, measure_judge, read_labels
from .answers import Answers
from .page import labelling_page
from .questions import CONTACT, HAPPENED, PRESENT, REVERSED
from .verdicts import THRESHOLD

_SHOWN, _SIDE, _TEXT, _GAP, _COLUMNS = 24, 220, 60, 10, 5


def parser() -> argparse.ArgumentParser:
    """Make the parser of `judge`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate judge",
        description="Measure a judge against people's labels: sensitivity, specificity, AUC, kappa. Writes table.md, "
        "accuracy.json (for --judge-accuracy) and sheet.png with the pictures it got wrong. "
        "'judge page' makes the page on which people label.",
    )
    parser.add_argument("--labels", type=of_type.path, required=True, help="JSON lines: picture, question, answer, by")
    parser.add_argument("--pictures", type=of_type.path, help="folder of the pictures; that of the labels by default")
    parser.add_argument("--judge", required=True, help="an image-text-to-text model of transformers, or miniworld")
    parser.add_argument("--judge-revision", default="main", help="commit of the judge on the hub")
    parser.add_argument("--out", type=of_type.path, default=Path("out/judge"), help="folder to write to")
    parser.add_argument("--device", type=of_type.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    return parser


def page_parser() -> argparse.ArgumentParser:
    """Make the parser of `judge page`."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate judge page",
        description="Write a page that shows pictures with a question and takes the keys y, n and u. It needs no "
        "server; its button saves labels.jsonl.",
    )
    parser.add_argument("pictures", type=of_type.path, help="folder of pictures")
    parser.add_argument("--prompts", type=of_type.path, required=True, help="prompts file of the pictures")
    parser.add_argument("--out", type=of_type.path, required=True, help="the page, e.g. label.html")
    parser.add_argument(
        "--kind", choices=(HAPPENED, REVERSED, CONTACT, PRESENT), default=HAPPENED, help="the kind of question"
    )
    parser.add_argument("--partial", action="store_true", help="leave out lines whose picture is missing")
    parser.add_argument("--spacy", default=MODEL, help="pipeline that finds predicates: a name or a folder")
    return parser


def run(options: argparse.Namespace, worlds: Worlds = NO_WORLDS) -> None:
    """Measure a judge.

    Raises:
        UserErrors: of the labels, the pictures, the judge, all in one report.
    """
    pictures = options.pictures or options.labels.parent
    labels, judge = all_or_faults(
        lambda: read_labels(options.labels, pictures), lambda: open_judge_model(options, worlds)
    )
    answers = Answers(judge, options.out / "answers.jsonl")
    accuracy, probabilities = measure_judge(labels, answers, lambda items: tqdm(items, desc="judge", unit=""))
    text = accuracy_text(accuracy)
    truth = agreed_answers(labels)[0]
    facts = {
        "accuracy": accuracy.table(),
        "answers": [
            {"picture": name_inside(path, pictures), "question": question, "label": truth[path, question], "p": p}
            for (path, question), p in probabilities.items()
        ],
    }
    write_text(options.out / "table.md", text)
    write_text(options.out / "accuracy.json", json.dumps(facts, indent=1) + "\n")
    save_picture(mistakes_sheet(labels, probabilities), options.out / "sheet.png")
    say(f"{text}\nwrote table.md, accuracy.json and sheet.png to {options.out}")


def run_page(options: argparse.Namespace) -> None:
    """Write the labelling page.

    Raises:
        UserErrors: of the prompts file and the pictures; the page exists; no such question.
    """
    if options.out.exists():
        raise UserErrors(f"--out {options.out} exists; choose a file that does not, so that nothing is overwritten.")
    entries = read_prompts(options.prompts, options.pictures, "skip" if options.partial else "fault")
    predicates = find_predicates(entries, options.spacy)
    page = labelling_page(entries, predicates, options.out.parent, options.kind, options.pictures)
    if '"question"' not in page:
        raise UserErrors(
            f"{options.prompts}: no line has a question of the kind '{options.kind}'; it needs 'names' and a "
            "relation" + (' with "symmetric": false.' if options.kind == REVERSED else ".")
        )
    write_text(options.out, page)
    say(f"wrote {options.out}: open it in a browser, answer with y, n and u, save labels.jsonl beside the pictures.")


def mistakes_sheet(labels: Sequence[Label], probabilities: Mapping[tuple[Path, str], float]) -> Image.Image:
    """Draw the pictures on which the judge differs from people, surest first."""
    truth = agreed_answers(labels)[0]
    wrong = sorted(
        (item for item, p in probabilities.items() if (p > THRESHOLD) != truth[item]),
        key=lambda item: (-abs(probabilities[item] - THRESHOLD), str(item)),
    )
    surest = wrong[:_SHOWN]
    rows = -(-len(surest) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + _GAP) + _GAP, 34 + rows * (_SIDE + _TEXT + _GAP) + _GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (_GAP, 8),
        f"{len(wrong)} of {len(probabilities)} answers differ from the labels"
        + (f"; the {len(surest)} surest:" if len(wrong) > len(surest) else ""),
        INK,
        font(15),
    )
    for place, item in enumerate(surest):
        left, top = _GAP + place % _COLUMNS * (_SIDE + _GAP), 34 + place // _COLUMNS * (_SIDE + _TEXT + _GAP)
        paste_picture(sheet, item[0], (left, top), _SIDE)
        words = item[1].split()
        lines = [
            " ".join(words[: len(words) // 2]),
            " ".join(words[len(words) // 2 :]),
            f"people {'yes' if truth[item] else 'no'}, judge p = {probabilities[item]:.2f}",
        ]
        for number, line in enumerate(lines):
            pen.text((left, top + _SIDE + 4 + 17 * number), line, INK, font(12))
    return sheet
