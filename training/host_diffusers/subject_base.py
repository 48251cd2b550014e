"""The frozen models of a subject adapter's recipe: a base of either architecture, and one image encoder."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import diffusers
import torch
import transformers
from torch import nn

from .base_model import BaseModelFiles, open_base_model
from .errors import ModelFileErrors, one_line
from .frozen import files_digest
from .stable_diffusion import is_stable_diffusion, open_stable_diffusion
from .vision import VisionSizes, load_vision, vision_sizes


class SubjectModelPaths(Protocol):
    """The config's table of models."""

    base: str
    clip_vision: str
    tokenizer: str


@dataclass(frozen=True, eq=False)
class SubjectModels:
    """What is frozen; weights are read when a part is loaded.

    Attributes:
        base: SD or SDXL.
        clip_vision: the image encoder's file or folder.
        sizes: of its patch tokens and embedding.
    """

    base: BaseModelFiles
    clip_vision: Path
    sizes: VisionSizes

    def vision(self, dtype: torch.dtype) -> nn.Module:
        """Load the image encoder.

        Raises:
            ModelFileErrors: not such an encoder.
        """
        try:
            return load_vision(self.clip_vision, dtype)
        except ValueError as error:
            raise ModelFileErrors(f"models.clip_vision: {one_line(error)}") from error

    def fingerprint(self) -> str:
        """Hash of all files, see `files_digest`."""
        return sha256(files_digest(self.clip_vision) + b"".join(map(files_digest, self.base.files))).hexdigest()


def open_subject_models(config: SubjectModelPaths) -> SubjectModels:
    """Look at every model without loading the large ones.

    Raises:
        ModelFileErrors: all of all models: not there, not what they should be, not fitting each other.
    """
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    faults: list[str] = []
    base = sizes = None
    vision = Path(config.clip_vision)
    try:
        if not vision.exists():
            raise ValueError(f"{vision} is not there. Download it, or correct the path.")
        sizes = vision_sizes(vision)
    except ValueError as error:
        faults.append(f"models.clip_vision: {one_line(error)}")
    try:
        base = open_subject_base(config.base, config.tokenizer)
    except ModelFileErrors as error:
        faults += error.messages
    if faults:
        raise ModelFileErrors(faults)
    return SubjectModels(base, vision, sizes)


def open_subject_base(path: str, tokenizer: str = "") -> BaseModelFiles:
    """Open a base with one text encoder or two.

    Raises:
        ModelFileErrors: see `open_base_model`.
    """
    if is_stable_diffusion(Path(path)):
        return open_stable_diffusion(Path(path), tokenizer)
    return open_base_model(path, tokenizer)
