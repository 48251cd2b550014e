"""The frozen models of a recipe: which files they are, whether they fit each other, and each of them on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import diffusers
import torch
import transformers
from torch import nn

from core.identity.files import load_identity
from core.identity.model import IdentityConfig, IdentityModel
from core.user_files import visible_files

from .base_model import BaseModelFiles, open_base_model
from .errors import ModelFileErrors, one_line
from .unet import unet_context, unet_layout
from .vision import load_vision, vision_width

_BLOCK = 1 << 20
_BLOCKS = 64
_ENCODERS = ("clip_vision", "local_clip_vision")
_READ = {".json", ".safetensors", ".bin"}  # what transformers reads of a folder


class ModelPaths(Protocol):
    """The config's table of models."""

    base: str
    identity: str
    clip_vision: str
    local_clip_vision: str
    tokenizer: str


@dataclass(frozen=True, eq=False)
class FrozenModels:
    """What is frozen in a recipe. Weights are read whenever a part is loaded; none is cached.

    Attributes:
        base: the base model.
        paths: the other models' files; an absent one is not in it.
        identity_config: sizes of the identity model, or None without one.
    """

    base: BaseModelFiles
    paths: dict[str, Path]
    identity_config: IdentityConfig | None

    def identity(self) -> IdentityModel:
        """Return the identity model, float32 on the CPU."""
        state, config = load_identity(self.paths["identity"])
        with torch.device("meta"):
            model = IdentityModel(config)
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
        return model.eval().requires_grad_(False)

    def vision(self, which: str, dtype: torch.dtype) -> nn.Module:
        """Load ``clip_vision`` or ``local_clip_vision``.

        Raises:
            ModelFileErrors: not such an encoder.
        """
        try:
            return load_vision(self.paths[which], dtype)
        except ValueError as error:
            raise ModelFileErrors(f"models.{which}: {one_line(error)}") from error

    def fingerprint(self) -> str:
        """Hash of all files: of their sizes and 64 blocks of each, so that 10 GB take no time."""
        digest = sha256()
        for name, path in sorted(self.paths.items()):
            digest.update(name.encode())
            for file in visible_files(path, _READ) if path.is_dir() else [path]:
                digest.update(_sampled(file))
        for file in self.base.files:
            digest.update(_sampled(file))
        return digest.hexdigest()


def fingerprint_of(files: Iterable[Path], settings: str) -> str:
    """Hash files, by their sizes and 64 blocks of each, and a text beside them."""
    digest = sha256(settings.encode())
    for file in files:
        digest.update(_sampled(file))
    return digest.hexdigest()


def open_frozen_models(config: ModelPaths) -> FrozenModels:
    """Look at every model of a recipe without loading the large ones.

    Args:
        config: its paths; empty where a model is not wanted.

    Raises:
        ModelFileErrors: all of all models: not there, not what they should be, not fitting each other.
    """
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    # 1. each model on its own
    faults: list[str] = []
    paths = {name: Path(getattr(config, name)) for name in ("identity", *_ENCODERS) if getattr(config, name)}
    base = identity = None
    widths = {}
    for name, path in paths.items():
        try:
            if not path.exists():
                raise ValueError(f"{path} is not there. Download it, or correct the path.")
            if name == "identity":
                identity = load_identity(path)[1]
            else:
                widths[name] = vision_width(path)
        except ValueError as error:
            faults.append(f"models.{name}: {one_line(error)}")
    try:
        base = open_base_model(config.base, config.tokenizer)
    except ModelFileErrors as error:
        faults += error.messages
    # 2. what does not fit between them
    if identity:
        faults += [
            f"models.{name}: {paths[name]} is {width} wide, the identity model reads encoders of width "
            f"{identity.resampler.image_width} (1664 is CLIP ViT-bigG/14)."
            for name, width in widths.items()
            if width != identity.resampler.image_width
        ]
    if base:
        faults += _misfits(base, identity, config)
    if faults:
        raise ModelFileErrors(faults)
    return FrozenModels(base, paths, identity)


def _misfits(base: BaseModelFiles, identity: IdentityConfig | None, config: ModelPaths) -> list[str]:
    unet, faults = base.empty_unet(), []
    widths, context = tuple(site.width for site in unet_layout(unet).sites()), unet_context(unet)
    if sum(base.text_widths) != context:
        faults.append(
            f"models.base: {config.base}: its text encoders are {' and '.join(map(str, base.text_widths))} "
            f"wide, its UNet reads {context}: parts of different bases."
        )
    if identity is None:
        return faults
    if widths != identity.widths or context != identity.resampler.context_width:
        faults.append(
            f"models.identity: {config.identity} fits a UNet with {len(identity.widths)} text "
            f"cross-attentions and context width {identity.resampler.context_width}; the base {config.base} "
            f"has {len(widths)} and {context}. Choose the identity model of this base."
        )
    if base.text_widths[0] != identity.resampler.phrase_width:
        faults.append(
            f"models.identity: it reads phrases of width {identity.resampler.phrase_width}, the base's first "
            f"text encoder makes {base.text_widths[0]}. Choose the identity model of this base."
        )
    return faults


def files_digest(path: Path) -> bytes:
    """Hash a model's file, or all of its folder's files, as `FrozenModels.fingerprint` does."""
    files = visible_files(path, _READ) if path.is_dir() else [path]
    return sha256(b"".join(map(_sampled, files))).digest()


def _sampled(path: Path) -> bytes:
    """Return a file's size and 64 blocks spread over it, hashed."""
    size = path.stat().st_size
    digest = sha256(str(size).encode())
    with path.open("rb") as file:
        for block in range(_BLOCKS):
            file.seek(max(0, size - _BLOCK) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
            if size <= _BLOCK:
                break
    return digest.digest()
