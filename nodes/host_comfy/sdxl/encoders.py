"""Photographs and phrases to features, through ComfyUI's memory manager.

Features of a photograph are remembered for as long as ComfyUI's output cache keeps that photograph, so that moving a
box, changing a name or adding a subject encodes nothing twice (``nodes/pipelines/subject_images.py`` hands out
the same tensor for the same picture and mask).
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from einops import rearrange
from torch import Tensor

from ....core.identity.image_prep import normalise_pixels, squares
from ....core.identity.local_tokens import DENSE_SCALE, dense_features, pool
from ....core.scene import Scene, Subject
from ..joint_space import encode_pooled
from ..weak_memo import WeakMemo
from .models import vision_tower

_remembered = WeakMemo()


def image_tokens(subject: Subject, clip_vision) -> Tensor:
    """(V * 257, W) penultimate hidden states of a subject's photographs, class tokens included, on the CPU."""

    def compute() -> Tensor:
        pictures = squares(subject.photographs, subject.mask, clip_vision.image_size)
        output = clip_vision.encode_image(rearrange(pictures, "v c h w -> v h w c"), crop=False)
        return rearrange(output["penultimate_hidden_states"].float().cpu(), "v l w -> (v l) w")

    return _remembered.once((subject.photographs, clip_vision.model), "image", compute)


def dense_maps(subject: Subject, clip_vision, progress: Callable[[], None] = lambda: None) -> Tensor:
    """(V, W, h, w) dense features of a subject's photographs, on the CPU; ``progress`` is called after each block."""

    def compute() -> Tensor:
        comfy.model_management.load_models_gpu([clip_vision.patcher])
        tower, device = vision_tower(clip_vision), clip_vision.load_device
        dtype = torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32
        pictures = normalise_pixels(squares(subject.photographs, subject.mask, DENSE_SCALE * clip_vision.image_size))
        # one photograph at a time: 4097 tokens each
        maps = [dense_features(tower, picture[None].to(device, dtype), progress).cpu() for picture in pictures]
        return torch.cat(maps)

    return _remembered.once((subject.photographs, clip_vision.model), "dense", compute)


def local_tokens(subject: Subject, clip_vision, grid: int, progress: Callable[[], None]) -> Tensor:
    """(V * g * g, W) local tokens of a subject's photographs, on the CPU."""
    return rearrange(pool(dense_maps(subject, clip_vision, progress), grid), "v l w -> (v l) w")


def encode_subjects(scene: Scene, clip_vision, local_clip_vision=None, grid: int = 4) -> tuple[Tensor, ...]:
    """For each subject (L, W): its image tokens, then its local tokens if there is an encoder for them.

    Shows a progress bar, and stops when the user cancels.

    Raises:
        ValueError: the two encoders have different widths.
    """
    if local_clip_vision is not None:
        widths = [
            encoder.model.vision_model.embeddings.patch_embedding.weight.shape[0]
            for encoder in (clip_vision, local_clip_vision)
        ]
        if widths[0] != widths[1]:
            raise ValueError(
                f"local_clip_vision: expected an encoder of the same width as clip_vision ({widths[0]}), "
                f"got {widths[1]}. Both are ViT-bigG/14 for the published identity model."
            )
    step = feature_progress(scene, local_clip_vision)
    features = []
    for subject in scene.subjects:
        step()
        tokens = image_tokens(subject, clip_vision)
        if local_clip_vision is not None:
            tokens = torch.cat((tokens, local_tokens(subject, local_clip_vision, grid, step)))
        features.append(tokens)
    return tuple(features)


def feature_progress(scene: Scene, local_clip_vision) -> Callable[[], None]:
    """Make the step of a progress bar over all blocks of all photographs; it raises when the user cancels."""
    blocks = 0 if local_clip_vision is None else len(local_clip_vision.model.vision_model.encoder.layers) - 1
    photographs = sum(len(subject.photographs) for subject in scene.subjects)
    bar = comfy.utils.ProgressBar(len(scene.subjects) + blocks * photographs)

    def step() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    return step


def encode_phrases(clip, phrases: list[str]) -> Tensor:
    """Encode phrases to CLIP-L's pooled output before its projection, as the resampler was trained with.

    SDXL's own path drops it, so CLIP-L runs alone. Phrases longer than 75 tokens count up to there.

    Returns:
        (S, P) float32 on the CPU.

    Raises:
        ValueError: the CLIP has no CLIP-L (the SDXL refiner has not).
    """
    if getattr(clip.cond_stage_model, "clip_l", None) is None:
        raise ValueError(
            "clip: expected SDXL's text encoders, got one without CLIP-L "
            f"({type(clip.cond_stage_model).__name__}). Connect the CLIP of an SDXL base checkpoint."
        )
    return encode_pooled(clip, "l", phrases, projected=False)
