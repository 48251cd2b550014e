"""A scene on SDXL, which has no references of its own: Encode Identity and Apply Identity with their defaults."""

from __future__ import annotations

import comfy.model_management
import torch

from ....core.identity.image_prep import squares
from ....core.scene import Scene
from ...pipelines.encode_identity import EncodedIdentity, encode
from ..sdxl import attach
from ..sdxl.models import base_of, check_fits, unet_layout
from .wiring import Request, Wiring
from .wiring.common import encode_text

IDENTITY_WEIGHT = 0.6  # as published
LOCAL_GRID = 4
LATENT_CHANNELS, LATENT_FACTOR = 4, 8


def apply(request: Request, scene: Scene, identity_model, boxes: bool, window: tuple[float, float]) -> tuple:
    """Make the MODEL with the subjects, and the wiring.

    Args:
        scene: the subjects that have references.
        identity_model: from Load Identity Model.
        boxes: each subject acts inside its box; else everywhere.
        window: fractions of the schedule in which the identities act.

    Raises:
        ValueError: no identity model or CLIP vision encoder, or one that does not fit.
    """
    if identity_model is None:
        raise ValueError(
            "model: an SDXL model has no reference images of its own. Connect it to Apply Identity with "
            "Load Identity Model, or connect identity_model here."
        )
    if request.clip_vision is None:
        raise ValueError(
            "clip_vision: expected the encoder that the identity model was trained with (CLIP ViT-bigG/14 "
            "for MS-Diffusion), got none. Connect Load CLIP Vision."
        )
    model = request.model
    if scene.subjects:
        identity = encode(scene, identity_model, request.clip, request.clip_vision, None, LOCAL_GRID, grounded=True)
        model = _with_identity(model, identity, boxes, window)
    size = request.clip_vision.image_size
    previews = [squares(subject.photographs, subject.mask, size).movedim(1, -1) for subject in scene.subjects]
    return model, Wiring(
        encode_text(request.clip, request.prompt),
        encode_text(request.clip, request.negative),
        _empty_latent(request),
        [view[None] for views in previews for view in views],
    )


def _with_identity(model, identity: EncodedIdentity, boxes: bool, window: tuple[float, float]):
    check_fits(identity.projected.widths, identity.context_width, unet_layout(model), base_of(model))
    return attach.attach_identity(
        model,
        identity.projected,
        identity.names,
        identity.tokens,
        IDENTITY_WEIGHT,
        window,
        "boxes" if boxes else "none",
    )


def _empty_latent(request: Request) -> dict:
    return {
        "samples": torch.zeros(
            request.batch_size,
            LATENT_CHANNELS,
            request.height // LATENT_FACTOR,
            request.width // LATENT_FACTOR,
            device=comfy.model_management.intermediate_device(),
        )
    }
