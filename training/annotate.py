"""Raw pictures to triplets that finetune reads: boxes, masks, joints, the sentence, and gates that judge them.

    python -m training.annotate RAW OUT --relation "hugging"                       then look at OUT/review.html
    python -m training.annotate RAW OUT --relation "hugging" --backend miniworld   pictures of the miniworld
    python -m training.annotate OUT --apply                read back what you have edited and decided, do the rest again
    python -m training.annotate OUT --import-coco FILE     the same with COCO keypoints edited elsewhere
    python -m training.annotate --convert-pose vitpose+_base.pth DIR      the AP-10K model out of ViTPose+'s six experts

RAW has one folder for each triplet: target.png and one picture of each subject named after it ("polar bear.png"), and
if you like prompt.txt with your own sentence. A folder of triplets that is annotated already (triplets.jsonl, or the
authors' prompts.json) gets the gates, the page and the files to edit, without any model. What is written, and how to
edit it: docs/data_engine.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .annotation.annotate import annotate_folder, check_out, read_state
from .annotation.backends import Backends
from .annotation.given import is_given, read_given
from .annotation.options import KINDS, LABELME, XANYLABELING, AnnotateOptions
from .annotation.raw import RawTriplet, read_raw
from .annotation.report import Report
from .annotation.sentence import say_faults, wrong_letters
from .annotation.thresholds import Thresholds, read_thresholds
from .common import arguments as of_type
from .common.cli import command, leave, say, shell_command
from .common.errors import UserErrors, all_or_faults
from .data.skeletons import AP10K, SKELETONS

MINIWORLD, TRANSFORMERS = "miniworld", "transformers"


def annotate(raw: Path, out: Path, options: AnnotateOptions) -> Report:
    """Annotate a folder of raw triplets; call it again with more of them, and only those are worked on.

    Args:
        raw: a folder for each triplet, see `annotation.raw`.
        out: receives triplets.jsonl of what the gates accept; new, or of an earlier call.
        options: the relation, and models by name.

    Returns:
        A verdict for each triplet; none may be accepted.

    Raises:
        UserErrors: the pictures, the options or the models are at fault; OUT is untouched.
        TrainingAborted: a model failed; finished results stay.
    """
    options = _prefer_own_annotation(raw, options)
    triplets, backends, limits = _prepare(lambda: _read_outside(raw, out, options), options)
    return annotate_folder(triplets, out, options, backends, limits)


def check_options(options: AnnotateOptions) -> None:
    """Check options and models before there are pictures; nothing is loaded.

    Raises:
        UserErrors: all that is wrong with them.
    """
    _, backends, _ = _prepare(lambda: None, options)
    all_or_faults(*(part.check for part in backends.parts().values()))


def apply(out: Path, coco: Path | None = None) -> Report:
    """Read back what people have edited and decided in OUT, and do everything that depends on it again.

    Raises:
        UserErrors: as `annotate`; no earlier annotation; files that cannot be read.
    """
    triplets, saved_options = read_state(out)
    saved_options["thresholds"] = Path(saved_options["thresholds"]) if saved_options["thresholds"] else None
    options = replace(AnnotateOptions(""), **saved_options)
    if options.given and not is_given(Path(options.given)):
        again = shell_command("training.annotate", ["RAW", str(out), "--relation", options.relation])
        raise UserErrors(
            f"{options.given}: the annotation of {out} was read from this folder, where no triplets are any more. Put "
            f"them back, or say where they are now: {again}"
        )
    _, backends, limits = _prepare(lambda: triplets, options)
    return annotate_folder(triplets, out, options, backends, limits, coco)


def open_backends(options: AnnotateOptions) -> Backends:
    """Choose the models that options name; none is loaded yet."""
    if options.backend == MINIWORLD:
        from .miniworld.experiments.annotator import backends

        return backends()
    from .annotation.models import backends

    return backends(options)


def _prefer_own_annotation(raw: Path, options: AnnotateOptions) -> AnnotateOptions:
    """Use a folder's own annotation in place of models if it has one; pictures are then looked up unpainted."""
    return replace(options, given=str(raw.absolute()), hide_others=False) if is_given(raw) else options


def _read_outside(raw: Path, out: Path, options: AnnotateOptions) -> list[RawTriplet]:
    """Read raw triplets, none where the folder's own annotation is read; OUT must be another folder."""
    if raw.resolve() == out.resolve():
        raise UserErrors(f"{out}: RAW and OUT are one folder; choose another OUT.")
    check_out(out)
    return [] if options.given else read_raw(raw)


def _prepare(
    read: Callable[[], list[RawTriplet]], options: AnnotateOptions
) -> tuple[list[RawTriplet], Backends, Thresholds]:
    """Read triplets, backends and limits, or report everything that is wrong with any of them."""

    def models() -> tuple[list[RawTriplet], Backends]:
        return read_given(Path(options.given), options.relation) if options.given else ([], open_backends(options))

    raw_triplets, (own_triplets, backends), *_ = all_or_faults(
        read,
        models,
        lambda: _check_options(options),
        lambda: read_thresholds(options.thresholds, Thresholds()),  # its faults do not depend on the models' defaults
    )
    triplets = raw_triplets or own_triplets
    without_sentence = [one for one in triplets if not one.predicate]
    faults = [
        f"{one.name}: {fault}" for one in without_sentence if (fault := wrong_letters(options.say, len(one.names)))
    ]
    if faults:
        raise UserErrors(faults)
    return triplets, backends, read_thresholds(options.thresholds, backends.thresholds)


def _check_options(options: AnnotateOptions) -> None:
    faults = say_faults(options.say, options.relation)
    faults += [
        f"--kind {name}={kind}: expected one of {', '.join(KINDS)}."
        for name, kind in options.kinds.items()
        if kind not in KINDS
    ]
    if faults:
        raise UserErrors(faults)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    return command(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.annotate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="+", type=of_type.path, metavar="RAW OUT", help="OUT alone with --apply and --import-coco")
    add("--relation", default="", help="as the sentence says it, e.g. hugging")
    add("--backend", choices=[TRANSFORMERS, MINIWORLD], default=TRANSFORMERS)
    add_arguments(parser)
    add("--dry-run", action="store_true", help="check pictures, options and models of RAW OUT; write nothing")
    add("--apply", action="store_true", help="read back edited JSON, COCO and decisions.json; other options stay")
    add("--import-coco", type=of_type.path, metavar="FILE", help="read back COCO keypoints, then as --apply")
    add("--convert-pose", action="store_true", help="folders: FILE.pth DIR")
    add("--dataset", choices=["ap10k", "apt36k"], default="ap10k", help="whose expert --convert-pose takes")
    return parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an annotation that `python -m training.generate` has too."""
    default, add = AnnotateOptions(""), parser.add_argument
    add("--kind", action="append", default=[], metavar="NAME=KIND", help=f"what a subject is: {', '.join(KINDS)}")
    add("--say", default="", help='the sentence, e.g. "A {a} is {relation} a {b} {place}."')
    add("--detector", default=default.detector, help="a Grounding DINO, OWLv2 or SAM 3 of transformers")
    add("--segmenter", default="", help="a SAM or SAM 2; SAM 2.1 large with a GPU, else tiny; none: boxes alone")
    add("--pose-animal", default="", help="folder that --convert-pose wrote; without it animals have no joints")
    add("--pose-person", default=default.pose_person, help="a ViTPose of transformers")
    add("--reader", default=default.reader, help="an image-text-to-text model that says whether it happened, or none")
    add("--embedder", default=default.embedder, help="looks of subjects: a DINOv2 of transformers, or none")
    add("--device", type=of_type.device_or_auto, default="auto", help="auto, cpu, cuda, mps")
    add("--thresholds", type=of_type.path, help="TOML that changes the gates' numbers")
    add("--hide-others", action="store_true", help="paint the other subjects over before joints are looked for")
    add("--keep-rejected", action="store_true", help="write lines of rejected triplets to rejected/triplets.jsonl")
    add("--editor", choices=[XANYLABELING, LABELME], default=XANYLABELING, help="4 or 2 points for a rectangle")


def _run(options) -> None:
    # How many folders the command line must name depends on what it asks for.
    folder_count = 1 if options.apply or options.import_coco else 2
    if len(options.folders) != folder_count:
        raise UserErrors(f"expected {'OUT' if folder_count == 1 else 'RAW OUT'}, got {len(options.folders)} folders.")
    if options.dry_run and (folder_count == 1 or options.convert_pose):
        raise UserErrors("--dry-run: expected RAW OUT, got --apply, --import-coco or --convert-pose, which write.")

    # A pose model is converted without any triplets.
    if options.convert_pose:
        from .host_diffusers.pose_conversion import convert

        try:
            say(convert(*options.folders, options.dataset, SKELETONS[AP10K].joints))
        except ValueError as error:
            raise UserErrors(str(error)) from error
        return

    # An earlier annotation is read back, or new triplets are annotated.
    if folder_count == 1:
        _print_report(apply(options.folders[0], options.import_coco), options.folders[0])
        return
    raw, out = options.folders
    chosen = options_of(options)
    if options.dry_run:
        chosen = _prefer_own_annotation(raw, chosen)
        triplets, backends, _ = _prepare(lambda: _read_outside(raw, out, chosen), chosen)
        all_or_faults(*(part.check for part in backends.parts().values()))
        say(f"{len(triplets)} triplets; nothing is written.")
        for role, part in backends.parts().items():
            say(f"  {role}: {part.name} ({part.licence}){'. ' + part.note if part.note else ''}")
        return
    _print_report(annotate(raw, out, chosen), out)


def options_of(options: argparse.Namespace) -> AnnotateOptions:
    """Read the options of a command line that has `add_arguments`, --relation and --backend."""
    kinds = dict(pair.partition("=")[::2] for pair in options.kind)
    names = [name for name in AnnotateOptions.__dataclass_fields__ if name not in ("kinds", "origin", "given")]
    return AnnotateOptions(kinds=kinds, **{name: getattr(options, name) for name in names})


def _print_report(report: Report, out: Path) -> None:
    """Print the notes and reasons of all triplets, and how many are accepted.

    Raises:
        UserErrors: none is accepted, with every reason.
    """
    for one in report.triplets:
        for text in (*one.notes, *one.reasons):
            say(f"{text}" if text.startswith(one.name) else f"{one.name}: {text}")
    if not report.accepted:
        raise UserErrors(f"none of {len(report.triplets)} triplets is accepted; look at {out / 'review.html'}.")
    counts = f"{len(report.accepted)} of {len(report.triplets)} triplets"
    say(f"wrote {counts} to {out / 'triplets.jsonl'}; look at {out / 'review.html'}")


if __name__ == "__main__":
    leave(main())
