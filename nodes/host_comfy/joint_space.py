"""Texts and pictures in one space: CLIP's projected embeddings, through ComfyUI's memory manager."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

_BATCH = 8
_TOWERS = ("g", "l")  # SDXL's CLIP-G goes with ViT-bigG, a CLIP-L with ViT-L


def embed_images(clip_vision, images: Tensor) -> Tensor:
    """(N, s, s, 3) square pictures of the encoder's size to (N, E) on the CPU; shows progress, stops when cancelled."""
    bar = comfy.utils.ProgressBar(len(images))
    parts = []
    for start in range(0, len(images), _BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        batch = images[start : start + _BATCH]
        parts.append(clip_vision.encode_image(batch, crop=False)["image_embeds"].float().cpu())
        bar.update(len(batch))
    return torch.cat(parts)


def embed_texts(clip, texts: Sequence[str], width: int) -> Tensor | None:
    """Embed texts in the space of pictures of some width; None if the CLIP holds no text encoder of that space.

    Args:
        clip: of any model; one of its encoders must have been trained with the pictures' encoder.
        texts: at most 75 tokens of each count.
        width: of the pictures' embeddings.

    Returns:
        (N, width) on the CPU.
    """
    for key in _TOWERS:
        tower = getattr(clip.cond_stage_model, f"clip_{key}", None)
        if tower is None or not _projects(tower, width):
            continue
        return encode_pooled(clip, key, texts, projected=True)
    return None


def encode_pooled(clip, key: str, texts: Sequence[str], projected: bool) -> Tensor:
    """Encode texts with one encoder of a CLIP alone.

    Args:
        key: of its tokens, e.g. "l" for CLIP-L.
        projected: with the encoder's projection, or without.

    Returns:
        (N, E) float32 pooled outputs on the CPU.
    """
    tower = getattr(clip.cond_stage_model, f"clip_{key}")
    clip.load_model()
    before = tower.return_projected_pooled
    # ComfyUI with dynamic memory must be told where to compute: there the weights stay where they are
    tower.set_clip_options({"projected_pooled": projected, "execution_device": clip.patcher.load_device})
    try:
        rows = [tower.encode_token_weights(clip.tokenize(text)[key])[1] for text in texts]
    finally:
        tower.set_clip_options({"projected_pooled": before, "execution_device": None})
    return torch.cat([row.reshape(1, -1) for row in rows]).float().cpu()


def _projects(tower, width: int) -> bool:
    """Whether a text encoder has a trained projection to this width; ComfyUI fills a missing one with the identity."""
    projection = getattr(getattr(tower, "transformer", None), "text_projection", None)
    weight = getattr(projection, "weight", None)
    if weight is None or weight.shape[0] != width:
        return False
    return weight.shape[0] != weight.shape[1] or not torch.equal(weight.float().cpu(), torch.eye(width))
