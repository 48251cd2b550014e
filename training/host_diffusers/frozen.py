"""The frozen models of a recipe: which files they are, whether they fit each other, and each of them on demand."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import diffusers
import torch
import transformers
from torch import nn

from core.identity.files import load_identity
from core.identity.model import IdentityConfig, IdentityModel

from ..common.errors import Faults
from ..config import ModelsConfig
from .base_model import Base, open_base
from .unet import unet_context, unet_layout
from .vision import load_vision

_BLOCK = 1 << 20
_BLOCKS = 64


@dataclass(frozen=True, eq=False)
class Frozen:
    """What is frozen in a recipe. Weights are read when a part is asked for, and kept by nobody here.

    Attributes:
        base: the base model.
        paths: the other models' files; an absent one is not in it.
        identity_config: sizes of the identity model, or None without one.
    """

    base: Base
    paths: dict[str, Path]
    identity_config: IdentityConfig | None

    def identity(self) -> IdentityModel:
        """The identity model, float32 on the CPU."""
        state, config = load_identity(self.paths["identity"])
        with torch.device("meta"):
            model = IdentityModel(config)
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
        return model.eval().requires_grad_(False)

    def vision(self, which: str, dtype: torch.dtype) -> nn.Module:
        """``clip_vision`` or ``local_clip_vision``.

        Raises:
            Faults: not such an encoder, or not the one the identity model reads.
        """
        try:
            model = load_vision(self.paths[which], dtype)
        except ValueError as error:
            raise Faults(f"models.{which}: {error}") from error
        wanted = self.identity_config.resampler.image_width
        if model.config.hidden_size != wanted:
            raise Faults(f"models.{which}: {self.paths[which]} is {model.config.hidden_size} wide, the identity model "
                         f"reads encoders of width {wanted} (1664 is CLIP ViT-bigG/14).")
        return model

    def fingerprint(self) -> str:
        """Hash of all files: of their sizes and 64 blocks of each, so that 10 GB take no time."""
        digest = sha256()
        for name, path in sorted(self.paths.items()):
            digest.update(name.encode())
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                digest.update(_sampled(file))
        for file in self.base.files:
            digest.update(_sampled(file))
        return digest.hexdigest()


def open_frozen(config: ModelsConfig) -> Frozen:
    """Look at every model of a recipe without loading the large ones.

    Raises:
        Faults: all of all models: not there, not what they should be, not fitting each other.
    """
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    faults: list[str] = []
    paths = {name: Path(getattr(config, name)) for name in ("identity", "clip_vision", "local_clip_vision")
             if getattr(config, name)}
    for name, path in paths.items():
        if not path.exists():
            faults.append(f"models.{name}: {path} is not there. Download it, or correct the path.")
    base, identity = None, None
    try:
        base = open_base(config.base, config.tokenizer)
    except Faults as error:
        faults += error.found
    if "identity" in paths and paths["identity"].exists():
        try:
            identity = load_identity(paths["identity"])[1]
        except ValueError as error:
            faults.append(f"models.identity: {error}")
    if base and identity:
        faults += _misfits(base, identity, config)
    if faults:
        raise Faults(faults)
    return Frozen(base, paths, identity)


def _misfits(base: Base, identity: IdentityConfig, config: ModelsConfig) -> list[str]:
    unet = base.empty_unet()
    widths = tuple(site.width for site in unet_layout(unet).sites())
    if widths == identity.widths and unet_context(unet) == identity.resampler.context_width:
        return []
    return [f"models.identity: {config.identity} fits a UNet with {len(identity.widths)} text cross-attentions and "
            f"context width {identity.resampler.context_width}; the base {config.base} has {len(widths)} and "
            f"{unet_context(unet)}. Choose the identity model of this base."]


def _sampled(path: Path) -> bytes:
    """A file's size and 64 blocks spread over it, hashed."""
    size = path.stat().st_size
    digest = sha256(str(size).encode())
    with path.open("rb") as file:
        for block in range(_BLOCKS):
            file.seek(max(0, size - _BLOCK) * block // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
            if size <= _BLOCK:
                break
    return digest.digest()
