"""Subject adapters under ComfyUI's memory manager."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
from torch import Tensor

from ....core.subject.files import SubjectAdapter, SubjectAdapterConfig, load_subject_adapter
from ..sdxl.models import managed

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedSubjectAdapter:
    """The value of a RELATE_SUBJECT_ADAPTER socket.

    Attributes:
        patcher: owns the new modules' weights for ComfyUI's memory manager; its model is a core `SubjectAdapter`.
        changes: trained weights of the base, by their keys in the file (``unet.…``, ``text_encoder.…``).
        config: its sizes and settings.
        file: its name, for messages.
    """

    patcher: comfy.model_patcher.ModelPatcher
    changes: dict[str, Tensor]
    config: SubjectAdapterConfig
    file: str

    def ready(self) -> SubjectAdapter:
        """Return the modules, on their device."""
        comfy.model_management.load_models_gpu([self.patcher])
        return self.patcher.model


def load(path: str) -> LoadedSubjectAdapter:
    """Read a file of ``models/relate``; weights keep the file's dtype and are cast where they are used.

    Raises:
        ValueError: the file is no subject adapter; see `core.subject.files.load_subject_adapter`.
    """
    state, config = load_subject_adapter(path)
    dtype = state["proj.linears_image.fc1.weight"].dtype
    with torch.device("meta"):
        module = SubjectAdapter(config, comfy.ops.manual_cast)
    module.to_empty(device="cpu")
    module.to(dtype)
    module.load(state)
    module.eval().requires_grad_(False)
    changes = {
        key: tensor
        for key, tensor in state.items()
        if key.startswith(("text_encoder.", "text_encoder_2.")) or (key.startswith("unet.") and ".fuser." not in key)
    }
    log.info(
        "Relate: subject adapter %s for %s, %d blocks, up to %d subjects",
        Path(path).name,
        config.base or "a base it does not name",
        len(config.blocks),
        config.max_subjects,
    )
    return LoadedSubjectAdapter(managed(module), changes, config, Path(path).name)


def difference_patches(weights: dict[str, Tensor], own: dict[str, list]) -> dict[str, tuple]:
    """Make ComfyUI's patches of the differences of trained weights from a model's own, by its key patches."""
    return {key: ("diff", (tensor.float() - _unpacked(own[key][0]).float().cpu(),)) for key, tensor in weights.items()}


def _unpacked(entry) -> Tensor:
    """Read the weight of an entry of ComfyUI's key patches: itself, or with the function that unpacks it."""
    if isinstance(entry, Tensor):
        return entry
    weight, convert = entry
    return convert(weight, inplace=False)
