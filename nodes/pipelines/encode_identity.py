"""Encode a scene's subjects to the value of a RELATE_IDENTITY socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ...core.identity.branch import ProjectedIdentity
from ...core.identity.image_prep import squares
from ...core.identity.model import SubjectFeatures
from ...core.scene import Scene

MAX_PUBLISHED_SUBJECTS = 4  # MS-Diffusion was trained with at most four
PREVIEW_SIZE = 512


@dataclass(frozen=True, eq=False)
class EncodedIdentity:
    """Keys and values of the subjects at every cross-attention; the big models are needed no more.

    Attributes:
        projected: from ``IdentityBranch.project``.
        context_width: of the UNet it was made for.
        names: the subjects' names, to find them in the prompt.
        tokens: of the CLIP that read the names, to find them in the prompt.
    """

    projected: ProjectedIdentity
    context_width: int
    names: tuple[str, ...]
    tokens: Any


def encode(
    scene: Scene, identity_model, clip, clip_vision, local_clip_vision, grid: int, grounded: bool
) -> EncodedIdentity:
    """Encode photographs, names and boxes to keys and values at every site.

    Raises:
        ValueError: encoders that do not fit the identity model.
    """
    from ..host_comfy import prompt_tokens
    from ..host_comfy.sdxl import encoders

    phrases = encoders.encode_phrases(clip, [subject.name for subject in scene.subjects])
    image_tokens = encoders.encode_subjects(scene, clip_vision, local_clip_vision, grid)
    _check_widths(identity_model, image_tokens[0].shape[-1], phrases.shape[-1])
    model = identity_model.ready()
    device = identity_model.patcher.load_device
    features = SubjectFeatures(tuple(tokens.to(device) for tokens in image_tokens), phrases.to(device))
    identity_tokens = model.extract(features, scene.layout, scene.weights().to(device), grounded)
    projected = model.ms_adapter.project(identity_tokens).cpu()
    names = tuple(subject.name for subject in scene.subjects)
    return EncodedIdentity(
        projected, identity_model.config.resampler.context_width, names, prompt_tokens.PromptTokens.of(clip)
    )


def _check_widths(identity_model, image_width: int, phrase_width: int) -> None:
    """Check that the encoders are those the identity model was trained with."""
    config, faults = identity_model.config.resampler, []
    if image_width != config.image_width:
        faults.append(
            f"clip_vision has width {image_width}, {identity_model.file} was trained with "
            f"{config.image_width}" + (" (CLIP ViT-bigG/14)" if config.image_width == 1664 else "")
        )
    if phrase_width != config.phrase_width:
        faults.append(
            f"clip has a text width of {phrase_width}, {identity_model.file} was trained with "
            f"{config.phrase_width}" + (" (SDXL's CLIP-L)" if config.phrase_width == 768 else "")
        )
    if faults:
        raise ValueError(f"identity_model: {'; '.join(faults)}. Load the encoder it belongs with.")


def preview_features(scene: Scene, local_clip_vision) -> torch.Tensor:
    """Draw each photograph beside its dense features as colours: (V, s, 2s, 3); one set of colours for all subjects."""
    from ..drawing.layout import feature_colours, side_by_side
    from ..host_comfy.sdxl import encoders

    step = encoders.feature_progress(scene, local_clip_vision)
    dense = torch.cat([encoders.dense_maps(subject, local_clip_vision, step) for subject in scene.subjects])
    pictures = torch.cat([squares(subject.photographs, subject.mask, PREVIEW_SIZE) for subject in scene.subjects])
    return side_by_side(pictures, feature_colours(dense))
