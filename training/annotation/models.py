"""Models of transformers for an annotation: opened by name, checked before anything runs, with their licences."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.prompt.sentence import make_sentence

from ..common import arguments as of_type
from ..data.skeletons import AP10K, COCO, SKELETONS
from ..host_diffusers import detectors, embedders, pose, segmenters, vision_language
from ..host_diffusers.opening import check_config
from .backends import Backends, Part
from .options import NONE, AnnotateOptions
from .thresholds import DetectionLimits, Thresholds

_LARGE, _TINY = "facebook/sam2.1-hiera-large", "facebook/sam2.1-hiera-tiny"
# By the beginning of a name on the hub; docs/data_engine.md says how sure each is.
_LICENCES = (
    (r"idea-research/grounding-dino|openmmlab-community/mm_grounding_dino|google/owl", "Apache-2.0", ""),
    (r"facebook/sam2|facebook/dinov2|usyd-community/vitpose", "Apache-2.0", ""),
    (r"qwen/qwen2\.5-vl-(3b|72b)", "Qwen licence", "Its licence restricts commercial use."),
    (r"qwen/qwen(3-vl|2\.5-vl)", "Apache-2.0", ""),
    (r"facebook/sam3", "SAM License", "Its licence forbids military, nuclear and espionage use and may change."),
    (r"facebook/dinov3", "DINOv3 License", "Gated; its own licence."),
    (r"facebook/sapiens", "Sapiens licence", "Non-commercial, or no surveillance and biometrics: read it."),
    (r"briaai/rmbg", "CC-BY-NC-4.0", "Non-commercial."),
    (r"llava-hf/", "LLaMA licence", "Its licence restricts use."),
)


def licence_of(name: str) -> tuple[str, str]:
    """Look up the licence of a model's weights, and a note where it restricts what may be done with them."""
    for pattern, licence, note in _LICENCES:
        if re.match(pattern, name.lower()):
            return licence, note
    return "unknown", "" if Path(name).is_dir() else "Its licence is not known here: read it."


def backends(options: AnnotateOptions) -> Backends:
    """Name the models of an annotation; none is loaded yet.

    Raises:
        ValueError: a device that this machine has not.
    """
    # The segmenter's size depends on the device, the least score on the kind of detector.
    device = device_of(options.device)
    limits = Thresholds()
    if "owl" in options.detector.lower():
        limits = limits.model_copy(update={"detection": DetectionLimits(score=0.15)})
    segmenter = options.segmenter or (_TINY if device == "cpu" else _LARGE)
    pose_models = {AP10K: ("--pose-animal", options.pose_animal), COCO: ("--pose-person", options.pose_person)}
    return Backends(
        detector=_part(
            "--detector",
            options.detector,
            ("detector",),
            lambda: detectors.open_detector(options.detector, device),
            lambda: check_config("--detector", options.detector, detectors.KINDS),
        ),
        segmenter=_optional(
            "--segmenter",
            segmenter,
            lambda: segmenters.open_segmenter(segmenter, device),
            lambda: check_config("--segmenter", segmenter, segmenters.KINDS),
        ),
        poses={
            skeleton: _pose(option, name, device, skeleton)
            for skeleton, (option, name) in pose_models.items()
            if name not in ("", NONE)
        },
        embedder=_optional(
            "--embedder",
            options.embedder,
            lambda: embedders.load_image_encoder(options.embedder, device, torch.float32, "--embedder"),
        ),
        reader=_optional("--reader", options.reader, lambda: open_reader(options.reader, device)),
        thresholds=limits,
    )


def device_of(name: str) -> str:
    """Resolve `auto`.

    Raises:
        ValueError: this machine has no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return of_type.device(name)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--device: {error}.") from error


def _optional(option: str, name: str, load: Callable[[], Any], check: Callable[[], Any] | None = None) -> Part | None:
    return None if name == NONE else _part(option, name, (option,), load, check)


def _pose(option: str, name: str, device: str, skeleton: str) -> Part:
    order = SKELETONS[skeleton]
    return _part(
        option,
        name,
        (option, skeleton),
        lambda: pose.open_pose(option, name, device, order.joints[0], order.mirror),
        lambda: pose.check_pose(option, name, order.joints[0]),
    )


def _part(
    option: str,
    name: str,
    role: Sequence[str],
    load: Callable[[], Any],
    check: Callable[[], Any] | None = None,
) -> Part:
    licence, note = licence_of(name)
    key = "/".join((*role, name, fingerprint(name)))
    return Part(name, key, licence, check or (lambda: check_config(option, name)), load, note)


def fingerprint(name: str) -> str:
    """Tell a folder's content by names, sizes and times; the hub's models by their name alone."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    facts = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())
    return str(facts)


def open_reader(name: str, device: str) -> QuestionReader:
    """Open a reader.

    Raises:
        ValueError: no such model.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return QuestionReader(vision_language.open_judge(name, device, dtype, option="--reader"))


class QuestionReader:
    """`Reader` of a vision-language model: the probability of Yes against No, so that nothing is parsed."""

    def __init__(self, judge: vision_language.VisionLanguageJudge) -> None:
        self.judge = judge

    def shows(self, image: Image.Image, names: Sequence[str], relation: str) -> float | None:
        """See the protocol; the question is VQAScore's (arXiv:2404.01291)."""
        return self._yes(image, f'Does this figure show "{make_sentence(names, relation)}"?')

    def place(self, image: Image.Image) -> str:
        """See the protocol."""
        question = "Where is this? Answer with at most six words that begin with in, on or at."
        return self.judge.answer([image], question, 16)

    def is_kind(self, image: Image.Image, name: str) -> str:
        """See the protocol; the kind with the surest Yes."""
        kinds = {"animal": "an animal or a toy animal", "person": "a person", "object": "a thing without legs"}
        chances = {kind: self._yes(image, f"Is the {name} in this picture {words}?") for kind, words in kinds.items()}
        return max(chances, key=lambda kind: chances[kind])

    def _yes(self, image: Image.Image, question: str) -> float:
        yes, no = (np.exp(value) for value in self.judge.yes_no([image], question))
        return float(yes / (yes + no)) if yes + no else 0.5
