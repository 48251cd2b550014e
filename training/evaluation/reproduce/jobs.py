"""Pictures to draw: one job for each line and method, grouped by relation so that LoRAs are loaded once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin

from ...common.atomic_io import atomic_write
from ...common.errors import UserErrors
from ..prompts import Entry, name_inside
from .settings import DrawingSettings

HASH_KEY, PROMPT_KEY, SEED_KEY = "relate_job", "relate_prompt", "relate_seed"


@dataclass(frozen=True)
class Job:
    """One picture to be drawn.

    Attributes:
        entry: its line; `entry.picture` is not its file.
        method: see `settings.METHODS`.
        relation_file: LoRA of its predicate, or empty.
        seed: of its noise.
        file: to write.
        stamp: hash of everything that it depends on; written into the file.
    """

    entry: Entry
    method: str
    relation_file: str
    seed: int
    file: Path
    stamp: str


def plan_jobs(
    entries: Sequence[Entry],
    pictures: Path,
    methods: Sequence[str],
    settings: DrawingSettings,
    method_hashes: dict[str, str],
    shard: tuple[int, int] = (0, 1),
) -> list[Job]:
    """List the jobs of a shard in the order of drawing: method, relation file, line.

    Args:
        entries: the prompts file, its pictures in `pictures`.
        pictures: receives one folder for each method.
        methods: names.
        settings: how to draw.
        method_hashes: see `manifest.method_hashes`.
        shard: (i, n): lines whose index modulo n is i.
    """
    jobs = []
    for index, entry in enumerate(entries):
        if index % shard[1] != shard[0]:
            continue
        for method in methods:
            file = settings.relation_file(entry.relation) if method == "relate" and entry.relation else ""
            seed = settings.first_seed + (entry.seed or 0)
            name = name_inside(entry.picture, pictures)
            facts = (method_hashes[method], name, entry.prompt, seed, file)
            stamp = hashlib.sha256(repr(facts).encode()).hexdigest()
            jobs.append(Job(entry, method, file, seed, pictures / method / name, stamp))
    order = {method: place for place, method in enumerate(methods)}
    return sorted(jobs, key=lambda job: (order[job.method], job.relation_file, job.entry.line))


def check_entries(entries: Sequence[Entry], methods: Sequence[str]) -> None:
    """Check that every line names its subjects, and for `relate` the relation.

    Raises:
        UserErrors: all lines that lack something.
    """
    faults = []
    for entry in entries:
        if not entry.references or not entry.names or not entry.boxes:
            faults.append(f"line {entry.line}: to be drawn it needs 'references', 'names' and 'boxes'.")
        if "relate" in methods and not entry.relation:
            faults.append(
                f"line {entry.line}: method relate draws with the LoRA of its relation; 'relation' is missing."
            )
        if Path(entry.picture.name).suffix.lower() != ".png":
            faults.append(f"line {entry.line}: pictures are drawn as .png, and 'picture' is {entry.picture.name}.")
    if faults:
        raise UserErrors(faults)


def state_of(job: Job) -> str:
    """Return `missing`, `drawn`, or `other`: a picture of other settings, of another program, or no picture."""
    if not job.file.exists():
        return "missing"
    try:
        with Image.open(job.file) as image:
            return "drawn" if image.info.get(HASH_KEY) == job.stamp else "other"
    except (OSError, SyntaxError):
        return "other"


def remaining(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that are not drawn yet.

    Raises:
        UserErrors: existing files that are not these jobs' pictures, all of them.
    """
    states = {job.file: state_of(job) for job in jobs}
    foreign = [file for file, state in states.items() if state == "other"]
    if foreign:
        raise UserErrors(
            [
                f"{file}: is there and was not drawn with these settings. Move it away, or choose another --out."
                for file in foreign
            ]
        )
    return [job for job in jobs if states[job.file] == "missing"]


def save_job(job: Job, image: Image.Image) -> None:
    """Write a picture atomically, with its stamp, prompt and seed in text chunks; the same bytes every time."""
    facts = PngImagePlugin.PngInfo()
    for key, value in ((HASH_KEY, job.stamp), (PROMPT_KEY, job.entry.prompt), (SEED_KEY, str(job.seed))):
        facts.add_itxt(key, value)
    pixels = image.convert("RGB")
    atomic_write(job.file, lambda path: pixels.save(path, format="PNG", pnginfo=facts))
