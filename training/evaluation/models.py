"""The models that measure pictures: the options that name them, and how they are opened, all or none."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..common import arguments as of_type
from ..common.errors import all_or_faults
from .predicate_parser import MODEL
from .prompts import Entry

CLIP, DINO = "openai/clip-vit-base-patch32", "facebook/dino-vits16"  # DreamBooth's (arXiv:2208.12242)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the measuring models."""
    add = parser.add_argument
    add(
        "--clip",
        default=CLIP,
        help="a folder of transformers or a hub's owner/name, an open_clip architecture, or miniworld",
    )
    add(
        "--clip-weights",
        default="",
        help="of an open_clip architecture: a file or one of open_clip's tags; a file of "
        "OpenAI's weights needs --clip ViT-B-32-quickgelu",
    )
    add(
        "--dino",
        help=f"a folder of transformers or a hub's owner/name, or none; {DINO}, but none with --clip miniworld",
    )
    add("--detector", default=NONE, help="who is where: a Grounding DINO, OWLv2 or SAM 3 of transformers, or miniworld")
    add("--encoder", default="", help="looks of crops: a DINOv2, DINOv3, CLIP or SigLIP of transformers, or miniworld")
    add("--segmenter", default=NONE, help="cuts subjects out of boxes: a SAM or SAM 2 of transformers")
    add("--faces", default=NONE, help="people's faces: a pack of insightface, e.g. antelopev2 (weights non-commercial)")
    add("--floor", type=float, help="cosine at or below which a detection is nobody; measured from the references")
    add("--judge", default=NONE, help="whether it happened: an image-text-to-text model of transformers, or miniworld")
    add("--judge-revision", default="main", help="commit of the judge on the hub, so that answers can be repeated")
    add(
        "--judge-accuracy", type=of_type.path, help="accuracy.json of 'judge --labels': shares corrected for its errors"
    )
    add("--no-mirror", action="store_true", help="do not ask about mirrored pictures, which shows the judge's noise")
    add("--grades", action="store_true", help="let the judge grade from 0 to 10 as well")
    add("--spacy", default=MODEL, help="pipeline that finds predicates: a name or a folder")
    add("--batch", type=int, default=32, help="pictures encoded at once")
    add("--device", type=of_type.device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", choices=DTYPES, default="float32")


@dataclass(frozen=True)
class Worlds:
    """Worlds with exact truth, as a command above passes them; this package imports none.

    Attributes:
        detectors, judges, encoders: name to what opens it, for `--detector`, `--judge` and `--encoder NAME`.
        count_exactly: entries to exact scores as Markdown and for JSON (`--exact`).
    """

    detectors: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    judges: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    count_exactly: Callable[[Sequence[Entry]], tuple[str, dict[str, Any]]] = lambda entries: ("", {})
    encoders: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


NO_WORLDS = Worlds()


@dataclass(frozen=True, eq=False)
class Models:
    """Models that measure pictures; None for a part that the options leave out.

    Attributes:
        clip, dino: see `host_diffusers/embedders`.
        subjects: see `assignment/subjects`.
        judge: see `judge/answers`.
        accuracy: the judge's, from labels.
        faces: see `assignment/face_rows`.
    """

    clip: Any
    dino: Any
    subjects: Any
    judge: Any
    accuracy: Any
    faces: Any = None


def model_steps(options: argparse.Namespace, worlds: Worlds = NO_WORLDS) -> list[Callable[[], Any]]:
    """List one function that opens each part of `Models`, in its order; for `all_or_faults`."""
    from ..host_diffusers.embedders import load_clip, load_dino
    from ..host_diffusers.faces import open_faces

    dtype = DTYPES[options.dtype]
    dino = options.dino or (NONE if options.clip == "miniworld" else DINO)
    return [
        lambda: load_clip(options.clip, options.clip_weights, options.device, dtype),
        lambda: None if dino == NONE else load_dino(dino, options.device, dtype),
        lambda: None if options.detector == NONE else _open_subjects(options, dtype, worlds),
        lambda: None if options.judge == NONE else open_judge_model(options, worlds),
        lambda: None if options.judge_accuracy is None else _read_accuracy(options.judge_accuracy),
        lambda: None if options.faces == NONE else open_faces(options.faces, options.device),
    ]


def _open_subjects(options: argparse.Namespace, dtype: torch.dtype, worlds: Worlds) -> Any:
    from ..host_diffusers.detectors import open_detector
    from ..host_diffusers.embedders import ENCODER, load_image_encoder
    from ..host_diffusers.segmenters import open_segmenter
    from .assignment.subjects import SubjectModels

    encoder = options.encoder or (options.detector if options.detector in worlds.detectors else ENCODER)
    by_name = worlds.detectors.get(options.detector)
    parts = all_or_faults(
        by_name or (lambda: open_detector(options.detector, options.device, dtype)),
        worlds.encoders.get(encoder) or (lambda: load_image_encoder(encoder, options.device, dtype)),
        lambda: None if options.segmenter == NONE else open_segmenter(options.segmenter, options.device, dtype),
    )
    return SubjectModels(*parts)


def open_judge_model(options: argparse.Namespace, worlds: Worlds = NO_WORLDS) -> Any:
    """Return the judge that `--judge` names.

    Raises:
        ValueError: no such judge.
    """
    from ..host_diffusers.vision_language import open_judge

    if options.judge in worlds.judges:
        return worlds.judges[options.judge]()
    return open_judge(options.judge, options.device, DTYPES[options.dtype], options.judge_revision)


def _read_accuracy(path: Path) -> Any:
    from .judge.accuracy import JudgeAccuracy

    return JudgeAccuracy.read(path)
