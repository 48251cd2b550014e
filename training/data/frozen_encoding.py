"""One frozen model after another over some crops of triplets: text, latents, identity tokens."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.identity.image_prep import normalise_pixels, squares
from core.identity.local_tokens import DENSE_SCALE, dense_features, pool
from core.identity.model import SubjectFeatures
from core.scene import Box, Layout

from ..config import Config
from ..host_diffusers.clipself import encoder_of_transformers
from ..host_diffusers.frozen import FrozenModels
from ..host_diffusers.images import encode_pictures, image_tokens
from ..host_diffusers.text import encode_phrases, encode_prompts
from .dataset import Example
from .prompt_spans import token_span

log = logging.getLogger(__name__)
_LENGTH = 77


def encode_examples(
    examples: Sequence[Example],
    boxes: Sequence[Sequence[Tensor]],
    config: Config,
    frozen: FrozenModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> list[list[dict[str, Tensor]]]:
    """Encode crops with one model after the other, each gone before the next comes.

    Args:
        examples: the crops.
        boxes: for each crop its sets of boxes (S, 4).
        config: the grid of the local tokens.
        frozen: the encoders.
        device, dtype: where and in which precision they run.
        progress: called with what is being done.

    Returns:
        For each crop and each of its sets of boxes the fields of `EncodedTriplets`.
    """
    rows = [_annotations(example) for example in examples]
    phrases = _add_text(rows, examples, frozen, device, dtype, progress)
    progress("encoding with the VAE")
    vae = frozen.base.vae().to(device)
    for row, example in zip(rows, examples):
        row["latents"] = encode_pictures(vae, example.target[None])[0]
        row["concept_latents"] = encode_pictures(vae, example.concepts)
    del vae
    if frozen.identity_config is None:
        for row in rows:
            row["identity"] = torch.zeros(len(row["present"]), 0, row["context"].shape[-1])
        return [[{**row, "boxes": each} for each in sets] for row, sets in zip(rows, boxes)]
    photograph_tokens = _photograph_tokens(examples, config, frozen, device, dtype, progress)
    progress("encoding identities")
    model = frozen.identity().to(device)
    variants = []
    with torch.no_grad():
        for row, sets, subject_tokens, phrase in zip(rows, boxes, photograph_tokens, phrases):
            features = SubjectFeatures(tuple(tokens.to(device) for tokens in subject_tokens), phrase.to(device))
            variants.append([])
            for each in sets:
                layout = Layout(tuple(Box(*box) for box in each.double().tolist()))
                identity = model.extract(features, layout, torch.ones(len(phrase))).subjects.float().cpu()
                variants[-1].append({**row, "boxes": each, "identity": identity})
    return variants


def free_memory(device: torch.device) -> None:
    """Give back the memory of models that nobody uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _annotations(example: Example) -> dict[str, Tensor]:
    return {
        "time_ids": example.time_ids,
        "region": example.region,
        "keypoints_target": example.keypoints_target,
        "keypoints_concepts": example.keypoints_concepts,
        "visible": example.visible.float(),
        "present": torch.ones(len(example.boxes)),
    }


def _add_text(
    rows: list[dict[str, Tensor]],
    examples: list[Example],
    frozen: FrozenModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> list[Tensor]:
    """Put prompts and predicate spans into the rows; return the subjects' phrases."""
    progress("encoding prompts")
    text = frozen.base.text(dtype).to(device)
    phrases = []
    for row, example in zip(rows, examples):
        triplet = example.triplet
        context, pooled = encode_prompts(text, [triplet.prompt])
        row["context"], row["pooled"] = context[0].float().cpu(), pooled[0].float().cpu()
        row["span"] = torch.zeros(_LENGTH)
        span = token_span(triplet.prompt, triplet.predicate, text.count_tokens)
        if span and span[1] < _LENGTH:
            row["span"][span[0] : span[1]] = 1 / (span[1] - span[0])
        else:
            log.warning("triplet %s: '%s' lies beyond the 77 tokens that CLIP reads.", triplet.name, triplet.predicate)
        phrases.append(encode_phrases(text, triplet.names).float())
    return phrases


def _photograph_tokens(
    examples: list[Example],
    config: Config,
    frozen: FrozenModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> list[list[Tensor]]:
    """Encode each subject's photograph, (L, W): image tokens, then local tokens if there is an encoder for them."""
    progress("encoding photographs")
    vision = frozen.vision("clip_vision", dtype).to(device)
    size = vision.config.image_size
    tokens = [
        [
            image_tokens(vision, normalise_pixels(squares(photograph[None], None, size)))[0].float().cpu()
            for photograph in example.photographs
        ]
        for example in examples
    ]
    if "local_clip_vision" not in frozen.paths:
        return tokens
    progress("encoding photographs, dense")
    local_encoder = encoder_of_transformers(frozen.vision("local_clip_vision", dtype).to(device))
    size = DENSE_SCALE * local_encoder.image_size
    with torch.no_grad():
        for example, subject_tokens in zip(examples, tokens):
            for subject, photograph in enumerate(example.photographs):
                pixels = normalise_pixels(squares(photograph[None], None, size)).to(device, dtype)
                local = pool(dense_features(local_encoder.tower, pixels), config.identity.local_grid)[0]
                subject_tokens[subject] = torch.cat((subject_tokens[subject], local.float().cpu()))
    return tokens
