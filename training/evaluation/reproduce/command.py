"""Draw RelationBench with this pack's engines, then measure it: `python -m training.evaluate relationbench run`.

Any prompts file with references, names and boxes will do: DreamBench, CustomConcept101, MS-Bench (`convert`), scenes of
the miniworld. Existing pictures are not drawn again, a killed command goes on, shards draw on several machines.
Written: prompts.jsonl, manifest.json, pictures/METHOD/*.png, table.md, scores.json, sheet.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ...common import arguments as of_type
from ...common.atomic_io import write_text
from ...common.cli import TrainingAborted, say
from ...common.comfyui_client import ComfyUIClient, Patience
from ...common.errors import UserErrors
from ...common.sheets import save_picture
from ..models import DTYPES, NO_WORLDS, Worlds, add_arguments, all_or_faults
from ..prompts import Entry, read_prompts
from ..relationbench import prompts_text
from .draw import GO_ON, draw_all
from .engines import ComfyEngine, DiffusersEngine, Engine
from .jobs import Job, check_entries, plan_jobs, remaining, state_of
from .manifest import build_manifest, merge_manifest, method_hashes
from .rows import reproduction_text, rows_facts, rows_sheet
from .settings import METHODS, WORLDS, DrawingSettings, with_changes


def parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate relationbench run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__ + "\n\nMethods: " + "; ".join(f"{name}: {what}" for name, what in METHODS.items()),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--subjects", type=of_type.path, help="folder of subjects, see 'relationbench'")
    source.add_argument("--prompts", type=of_type.path, help="a prompts file with references, names and boxes")

    # The run: methods, engine and settings.
    add = parser.add_argument
    add("--out", type=of_type.path, required=True, help="folder to write to")
    add("--method", default=",".join(METHODS), help="which rows, comma-separated; the published baseline first")
    add("--engine", choices=("comfy", "diffusers"), default="comfy")
    add("--comfyui", default="http://127.0.0.1:8188", help="address of the ComfyUI")
    add("--world", choices=WORLDS, default="sdxl", help="which models")
    add("--relations", type=of_type.path, default=Path("models/loras"), help="folder of relation LoRAs, for diffusers")
    add(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="NAME=VALUE",
        help="another setting, e.g. checkpoint=..., relation_files={relation}.safetensors, steps=30",
    )

    # Size of the benchmark, and which part of it is drawn and measured here.
    add("--cases", default="100", help="100: four of each template; or single x pair, e.g. 100x100")
    add("--seeds", type=int, default=1, help="pictures of each case")
    add(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="draw every N-th line, beginning with line I; measure when all are there",
    )
    add("--partial", action="store_true", help="measure although pictures or relation LoRAs are missing; says how many")
    add("--exact", action="store_true", help="count relations and identities as well; the miniworld's scenes only")
    add("--draw-only", action="store_true", help="do not measure")
    add("--run-seconds", type=of_type.positive, default=1800, help="longest time one picture may take in ComfyUI")
    add_arguments(parser)
    return parser


def run(options: argparse.Namespace, worlds: Worlds = NO_WORLDS) -> None:
    """Draw the missing pictures, and measure when all are there.

    Raises:
        UserErrors: everything that keeps it from beginning, in one report.
        TrainingAborted: it began and cannot go on; says how to go on.
    """
    # 1. read lines, methods and settings, and open the engine
    methods, shard, settings = all_or_faults(
        lambda: read_methods(options.method),
        lambda: read_shard(options.shard),
        lambda: with_changes(WORLDS[options.world], options.changes),
    )
    prompts = prompts_file(options)
    pictures = options.out / "pictures"
    entries, engine = all_or_faults(
        lambda: read_prompts(prompts, pictures, missing="keep"), lambda: open_engine(options, settings)
    )
    check_entries(entries, methods)
    # 2. write the manifest, or refuse a folder of another run
    files = relation_files(entries, methods, settings)
    lacking = engine.missing_relations(files)
    if lacking and not options.partial:
        raise UserErrors(
            [
                f"{file}: no relation LoRA of this name. Train it, name the files with --set relation_files=..., "
                "or draw the others with --partial."
                for file in lacking
            ]
        )
    weights = {
        method: engine.weights([file for file in files if file not in lacking] if method == "relate" else [])
        for method in methods
    }
    manifest = merge_manifest(
        options.out / "manifest.json", build_manifest(prompts, entries, methods, settings, engine.facts, weights)
    )
    hashes = method_hashes(manifest)
    # 3. draw
    mine = [
        job
        for job in plan_jobs(entries, pictures, methods, settings, hashes, shard)
        if job.relation_file not in lacking
    ]
    jobs = remaining(mine)
    say(
        f"{len(mine)} pictures of this shard ({options.shard}), {len(mine) - len(jobs)} there already"
        + (f"; {len(lacking)} relations without a LoRA: {', '.join(lacking)}" if lacking else "")
    )
    if jobs:
        engine.check(jobs)
        result = draw_all(jobs, engine, say)
        say(f"drew {result.pictures} pictures in {result.seconds:.0f} s")
        if result.failures:
            raise TrainingAborted(
                "\n".join([f"{len(result.failures)} pictures could not be drawn:", *result.failures, GO_ON])
            )
    # 4. measure
    if not options.draw_only:
        measure(options, prompts, plan_jobs(entries, pictures, methods, settings, hashes), methods, worlds)


def prompts_file(options: argparse.Namespace) -> Path:
    """Return the prompts file given, or the one written for the subjects.

    Raises:
        UserErrors: no subjects, or other subjects than those of the existing file.
    """
    if options.prompts is not None:
        return options.prompts
    path = options.out / "prompts.jsonl"
    text = prompts_text(options.subjects, options.out, options.seeds, options.cases)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserErrors(f"{path}: was written for other subjects, seeds or cases. Choose another --out.")
    if not path.exists():
        write_text(path, text)
    return path


def read_methods(text: str) -> list[str]:
    """Read the methods, in their order.

    Raises:
        UserErrors: unknown ones, or none.
    """
    methods = list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UserErrors(f"--method {text}: expected some of {', '.join(METHODS)}.")
    return methods


def read_shard(text: str) -> tuple[int, int]:
    """Read "2/8" as (2, 8).

    Raises:
        UserErrors: not such a text.
    """
    index, slash, count = text.partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not int(index) < int(count):
        raise UserErrors(f"--shard {text}: expected I/N with 0 <= I < N, e.g. 0/8 to 7/8 on eight machines.")
    return int(index), int(count)


def relation_files(entries: Sequence[Entry], methods: Sequence[str], settings: DrawingSettings) -> list[str]:
    """Return the LoRAs that the run needs, one for each predicate."""
    if "relate" not in methods:
        return []
    return list(dict.fromkeys(settings.relation_file(entry.relation) for entry in entries if entry.relation))


def open_engine(options: argparse.Namespace, settings: DrawingSettings) -> Engine:
    """Open the engine that the options name.

    Raises:
        UserErrors: no ComfyUI at the address; missing models.
    """
    if options.engine == "diffusers":
        return DiffusersEngine(settings, options.relations, options.device, DTYPES[options.dtype])
    client = ComfyUIClient(options.comfyui, Patience(run_seconds=options.run_seconds), say=say)
    return ComfyEngine(client, settings)


def measure(
    options: argparse.Namespace, prompts: Path, jobs: Sequence[Job], methods: Sequence[str], worlds: Worlds
) -> None:
    """Measure all methods with the same models, beside the published rows.

    Raises:
        UserErrors: pictures are missing and neither --partial nor a shard is set.
    """
    from ..folders import measure_folders

    missing = [job for job in jobs if state_of(job) != "drawn"]
    if missing and not options.partial:
        if read_shard(options.shard)[1] > 1:
            return say(
                f"{len(missing)} pictures of other shards are missing; the same command measures when all are there."
            )
        raise UserErrors(
            [f"{job.file} is missing." for job in missing]
            + ["Draw them with the same command, or measure the others with --partial."]
        )
    options.prompts = prompts
    folders = {method: options.out / "pictures" / method for method in methods}
    measured = measure_folders(folders, options, worlds)
    complete = {method: not any(job.method == method for job in missing) for method in methods}
    text = reproduction_text(measured, complete, options.world)
    facts = json.loads((options.out / "scores.json").read_text(encoding="utf-8"))
    write_text(
        options.out / "scores.json",
        json.dumps({**facts, "methods": rows_facts(measured, complete)}, indent=1, ensure_ascii=False) + "\n",
    )
    table = (options.out / "table.md").read_text(encoding="utf-8")
    write_text(options.out / "table.md", text + "\n" + table)
    save_picture(rows_sheet(measured), options.out / "sheet.png")
    return say(text)
