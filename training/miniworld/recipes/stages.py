"""Stages of training the miniworld's models: needs, minutes and work of each.

Trained stages get minutes of one core; the figures are for 165 minutes on two cores and are scaled to the machine.
A stage measures its pace over its first steps, fixes its number of steps by it (in `<out>/plans`, so that a resumed
stage keeps its schedule) and then trains to the end of a schedule that cools down.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...common.atomic_io import write_text
from ...engine.timed_loop import State, TrainerConfig
from . import (
    autoencoder,
    classifiers,
    contrastive,
    corpus,
    decoder,
    denoiser,
    detector,
    encoded_corpus,
    export,
    flux,
    labelled_scenes,
    local_encoder,
)

Train = Callable[[Path, torch.device, float, TrainerConfig, "int | None"], State]
PACE_FROM, PACE_TO = 4, 16  # the steps that are timed; the first are slower
REFERENCE_MINUTES, REFERENCE_CORES = 165.0, 2
OVERRUN = 1.25  # a stage that its machine slows down stops after this multiple of its minutes


@dataclass(frozen=True)
class Size:
    """Size of a run.

    Attributes:
        scenes, identities, portraits: of the corpus, see CorpusSize.
        labelled: pictures for the classifiers.
        steps: of every trained stage; None: as many as its minutes allow.
        batch: of every trained stage; None: each recipe's own.
        save_minutes: between checkpoints.
    """

    scenes: int = 24000
    identities: int = 4000
    portraits: int = 2
    labelled: int = 15000
    steps: int | None = None
    batch: int | None = None
    save_minutes: float = 4.0


# "tiny" takes two steps of every recipe and saves after each: for tests
SIZES = {"full": Size(), "tiny": Size(10, 6, 1, 60, steps=2, batch=6, save_minutes=0.0)}


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        needs: stages that must be done first.
        minutes: of one core, for a run of REFERENCE_MINUTES; 0 for stages of fixed work.
        recipe: its settings and train function; None for stages of fixed work.
        work: function of a stage of fixed work; yields lines of progress.
    """

    needs: tuple[str, ...]
    minutes: float = 0.0
    recipe: tuple[TrainerConfig, Train] | None = None
    work: Callable[[Path, Size], Iterator[str]] | None = None


def _render(out: Path, size: Size) -> Iterator[str]:
    extent = corpus.CorpusSize(size.scenes, size.identities, size.portraits)
    yield from corpus.render_corpus(out / "corpus", extent, 2)


def _label(out: Path, size: Size) -> Iterator[str]:
    yield from labelled_scenes.render_labelled(out / "labelled", size.labelled, 0, 1)


def _encode(part: str) -> Callable[[Path, Size], Iterator[str]]:
    return lambda out, size: encoded_corpus.encode(out, (part,))


def _detect(out: Path, size: Size) -> Iterator[str]:
    network = detector.train(size.steps or detector.STEPS, count=min(size.labelled, detector.TRAINING))
    count = min(size.labelled, detector.VALIDATION)
    yield json.dumps(detector.ship(network, out / detector.FILE, classifiers.load_trained(out), count))


def _export(out: Path, size: Size) -> Iterator[str]:
    folder = out / "models"
    facts = export.export(out, folder)
    yield json.dumps(facts | {"flux": export.export_flux(out, folder / "flux", folder / "flux_index")})


# in order of urgency: of the stages that could run, the first runs
STAGES: dict[str, Stage] = {
    "render": Stage((), work=_render),
    "autoencoder": Stage(("render",), 50, (autoencoder.SETTINGS, autoencoder.train)),
    "clip": Stage(("render",), 22, (contrastive.SETTINGS, contrastive.train)),
    "distill": Stage(("clip",), 6, (local_encoder.SETTINGS, local_encoder.train)),
    "texts": Stage(("clip",), work=_encode("texts")),
    "references": Stage(("distill",), work=_encode("references")),
    "latents": Stage(("autoencoder",), work=_encode("latents")),
    "unet": Stage(("texts", "references", "latents"), 96, (denoiser.SETTINGS, denoiser.train)),
    "label": Stage((), work=_label),
    "classifiers": Stage(("label",), 18, (classifiers.SETTINGS, classifiers.train)),
    "flux_base": Stage(("latents", "clip"), 34, (flux.BASE, flux.train_base)),
    "decoder": Stage(("latents",), 12, (decoder.SETTINGS, decoder.train)),
    "detector": Stage(("classifiers",), work=_detect),
    "flux_dreamo": Stage(("flux_base",), 26, (flux.SETTINGS, flux.train_dreamo)),
    "flux_index": Stage(("flux_base",), 14, (flux.INDEX, flux.train_index)),
    "export": Stage(("unet", "decoder", "flux_dreamo", "flux_index", "detector"), work=_export),
}


def is_done(out: Path, name: str) -> bool:
    """Whether a stage ran to its end."""
    return (out / "plans" / f"{name}.done").exists()


def run_stage(out: Path, name: str, size: Size, minutes: float) -> Iterator[str]:
    """Run one stage to its end, going on from where an earlier call was stopped; yields lines of progress.

    Args:
        out: of the runs.
        name: key of STAGES.
        size: of the run.
        minutes: for a trained stage, of this machine's time.
    """
    stage = STAGES[name]
    if stage.recipe is None:
        yield from stage.work(out, size)
    else:
        state = _train(out, name, size, minutes)
        yield f"{name}: {state.step} steps, {state.samples} samples, {state.seconds / 60:.1f} minutes"
    write_text(out / "plans" / f"{name}.done", "")


def _train(out: Path, name: str, size: Size, minutes: float) -> State:
    settings, train = STAGES[name].recipe
    settings = replace(settings, batch_size=size.batch or settings.batch_size, save_minutes=size.save_minutes)
    device, plan = torch.device("cpu"), out / "plans" / f"{name}.json"
    if not plan.exists():
        steps = size.steps or _affordable(out, settings, train, device, minutes)
        write_text(plan, json.dumps({"steps": steps, "batch": settings.batch_size, "minutes": minutes}))
    facts = json.loads(plan.read_text(encoding="utf-8"))
    settings = replace(settings, steps=facts["steps"], batch_size=facts["batch"])
    return train(out, device, OVERRUN * minutes, settings, None)


def _affordable(out: Path, settings: TrainerConfig, train: Train, device: torch.device, minutes: float) -> int:
    """Estimate the steps that fit into the minutes, by the pace of a few."""
    endless = replace(settings, steps=10**9)
    first = train(out, device, minutes, endless, PACE_FROM)
    then = train(out, device, minutes, endless, PACE_TO)
    pace = (then.seconds - first.seconds) / max(then.step - first.step, 1)
    return max(int((60 * minutes - then.seconds) / max(pace, 1e-6)) + then.step, PACE_TO)


def stage_minutes(name: str, minutes: float, cores: int) -> float:
    """Return the minutes of a trained stage in a run of `minutes` on `cores` cores."""
    return STAGES[name].minutes * minutes / REFERENCE_MINUTES * min(cores / REFERENCE_CORES, 1.0)
