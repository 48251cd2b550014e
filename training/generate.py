"""From an idea to training triplets: draw raw pictures, annotate them, draw again what was rejected.

    python -m training.generate OUT --relation "hugging" --subjects "wolf, leopard; bear, tiger" --count 5
    python -m training.generate OUT --relation ... --subjects ... --target-template mine.json --edit-template edit.json
    python -m training.generate OUT --relation "high-fiving" --subjects "fox, bear; cat, frog" --engine miniworld

Needs a running ComfyUI (or diffusers) and the models of its templates; see docs/new_relation.md. Recipes: target-first
(draw the relation, edit it into each subject alone), panels (one wide picture, cut), subjects-first (each subject, then
one picture composed of them). Written: raw/ (pictures), triplets.jsonl and what `training.annotate` writes beside it.
The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from core.user_files import read_json_object, visible

from .annotate import MINIWORLD, TRANSFORMERS, annotate, check_options, options_of
from .annotate import add_arguments as add_annotation_arguments
from .annotation.report import REJECT, Report
from .common.atomic_io import write_text
from .common.cli import TrainingAborted, command, leave, say
from .common.errors import all_or_faults
from .common.folder_lock import locked
from .config import DataConfig
from .data.dataset import load_triplets
from .generation import licences
from .generation.options import add_arguments, check_engine, open_engine, read_order
from .generation.picture_store import PictureStore
from .generation.request import Engine
from .generation.rounds import Annotate, Order, Progress, Verdicts, run_rounds
from .generation.run_settings import check_folder, write_settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--backend", choices=[TRANSFORMERS, MINIWORLD], help="who annotates; as the engine if miniworld"
    )
    add_annotation_arguments(parser)
    options = parser.parse_args(arguments)
    return command(lambda: generate(options))


def generate(options: argparse.Namespace) -> None:
    """Draw and annotate until enough triplets are accepted.

    Raises:
        UserErrors: everything that keeps it from beginning, in one report; nothing is written then.
        TrainingAborted: stopped, or too few were accepted; says how to go on.
    """
    # 1. read the order and open the engine: every fault at once, before anything is drawn
    engine = open_engine(options)
    order, annotator = all_or_faults(lambda: read_order(options, engine), lambda: annotator_of(options))
    check_engine(engine, order)
    check_folder(options.out, order, engine)
    for note in licences.notes(model["file"] for model in engine.facts["models"]):
        say(f"note: {note}")
    # 2. draw, annotate, until enough
    work = options.out / ".work" / "drawn"
    with locked(work):
        write_settings(options.out, order, engine)
        store = PictureStore(work, engine, say)
        progress = run_rounds(order, engine, annotator, options.out, store, say)
        write_report(options.out, order, engine, store, progress)
    # 3. load the triplets as training does
    finish(options.out, order, progress)


def annotator_of(options: argparse.Namespace) -> Annotate:
    """Bind `training.annotate` to this command's options: raw pictures to verdicts.

    Raises:
        UserErrors: its options or models.
    """
    options.backend = options.backend or (MINIWORLD if options.engine == MINIWORLD else TRANSFORMERS)
    annotate_options = options_of(options)
    check_options(annotate_options)

    def run(raw: Path, out: Path) -> Verdicts:
        if options.no_filters:
            accept_all(raw, out)
        return verdicts_of(annotate(raw, out, annotate_options))

    return run


def verdicts_of(report: Report) -> Verdicts:
    """Sum up a report: the accepted triplets, and the gates that the others failed; "incomplete" where none did."""
    failed = {
        one.name: tuple(gate for gate, result in one.gates.items() if result.status == REJECT) or ("incomplete",)
        for one in report.triplets
        if not one.accepted
    }
    return Verdicts(frozenset(report.accepted), failed)


def accept_all(raw: Path, out: Path) -> None:
    """Accept every attempt without a decision, as a person would in `decisions.json`.

    Raises:
        UserErrors: that file cannot be read.
    """
    path = out / "decisions.json"
    (decisions,) = all_or_faults(lambda: read_json_object(path) if path.is_file() else {})
    decisions = {**{one.name: "accept" for one in visible(raw) if one.is_dir()}, **decisions}
    write_text(path, json.dumps(decisions, indent=1) + "\n")


def write_report(out: Path, order: Order, engine: Engine, store: PictureStore, progress: Progress) -> None:
    """Add the engine, the counts and the yield to the annotation's `report.json`."""
    path = out / "report.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    facts["generation"] = {
        **engine.facts,
        "recipe": order.recipe,
        "attempts": progress.attempts,
        "accepted": len(progress.accepted),
        "wanted": order.count,
        "failed": dict(progress.failed),
        "not_drawn": progress.failures,
        "pictures_drawn": store.drawn,
        "pictures_kept": store.kept,
        "seconds_drawing": round(store.seconds, 1),
    }
    write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def finish(out: Path, order: Order, progress: Progress) -> None:
    """Load the triplets as training does, and print their number.

    Raises:
        UserErrors: triplets.jsonl does not load.
        TrainingAborted: fewer triplets than wanted.
    """
    accepted = len(progress.accepted)
    if accepted:
        load_triplets(DataConfig(folder=str(out), fit="pad"), order.relation)
    if accepted < order.count:
        raise TrainingAborted(
            f"only {accepted} of {order.count} triplets after {progress.attempts} attempts: "
            f"{progress.yields() or 'none was drawn'}; see {out / 'review.html'}. Raise --tries, change the wording or "
            "the templates, or accept some by hand (python -m training.annotate OUT --apply)."
        )
    say(
        f"{accepted} triplets of '{order.relation}' in {out / 'triplets.jsonl'} after {progress.attempts} attempts"
        + (f" ({progress.yields()})" if progress.yields() else "")
        + f"; look at {out / 'review.html'}"
    )


if __name__ == "__main__":
    leave(main())
