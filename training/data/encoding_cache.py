"""Everything frozen, encoded once: latents, text, identity tokens; kept on disk by content.

A crop's file is named by the hash of what it is made of: the pictures, the annotations, the crop, the models. The
encoders are loaded one after the other, only if a file is missing, and are gone before the first training step.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.checkpoint import save
from core.identity.image_prep import normalise_pixels, squares
from core.identity.local_tokens import DENSE_SCALE, dense_features, pool
from core.identity.model import SubjectFeatures
from core.scene import Box, Layout

from ..config import Config
from ..host_diffusers.clipself import encoder_of_transformers
from ..host_diffusers.frozen import FrozenModels
from ..host_diffusers.images import encode_pictures, image_tokens
from ..host_diffusers.text import encode_phrases, encode_prompts
from .box_growth import box_guesses, grown
from .dataset import Example, annotation_bytes, crop_of, prepare
from .encoded_triplets import EncodedTriplets, stack_rows
from .prompt_spans import token_span
from .triplet import Triplet

log = logging.getLogger(__name__)
_VERSION = 1  # of the cache; raised whenever an encoding changes
_LENGTH = 77


def encode(
    triplets: Sequence[Triplet],
    config: Config,
    frozen: FrozenModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> EncodedTriplets:
    """Encode every crop of every triplet, or read it from the cache.

    Args:
        triplets: to encode.
        config: `identity.box_growth` adds rows behind all crops: each again, with other boxes.
        frozen: the encoders.
        device, dtype: where and in which precision the encoders run (the VAE and the identity model in float32).
        progress: called with what is being done.
    """
    crops = [
        (triplet, crop, guess)
        for guess in range(box_guesses(config))
        for triplet in triplets
        for crop in range(config.data.crops)
    ]
    models = frozen.fingerprint()
    files = [Path(config.output.cache) / f"{_key(*crop, config, models, dtype)}.safetensors" for crop in crops]
    missing = [i for i, file in enumerate(files) if not is_whole(file)]
    if missing:
        progress(f"encoding {len(missing)} of {len(crops)} pictures")
        examples = [_example(*crops[i], config) for i in missing]
        encoded = _encode_all(examples, config, frozen, device, dtype, progress)
        for example, tensors, i in zip(examples, encoded, missing):
            save(files[i], tensors, {"kind": "encoded triplet", "prompt": example.triplet.prompt})
        free_memory(device)
    return stack_rows([load_file(file) for file in files])


def _example(triplet: Triplet, crop: int, guess: int, config: Config) -> Example:
    """Cut one square; its boxes are as they are in guess 0."""
    example = prepare(triplet, config.data, crop, config.train.seed)
    if not guess:
        return example
    words = f"{config.train.seed}/{triplet.name}/{crop}/boxes {guess}"
    return replace(example, boxes=grown(example.boxes, config.identity.box_growth, words))


def encode_negative(
    config: Config, frozen: FrozenModels, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the negative prompt for guidance: context (1, 77, D) and pooled (1, P), from the cache if it is there."""
    key = sha256(json.dumps([_VERSION, config.samples.negative, frozen.fingerprint(), str(dtype)]).encode()).hexdigest()
    file = Path(config.output.cache) / f"{key}.safetensors"
    if not is_whole(file):
        text = frozen.base.text(dtype).to(device)
        context, pooled = encode_prompts(text, [config.samples.negative])
        save(file, {"context": context.float(), "pooled": pooled.float()}, {"kind": "encoded prompt"})
    tensors = load_file(file)
    return tensors["context"], tensors["pooled"]


def _key(triplet: Triplet, crop: int, guess: int, config: Config, models: str, dtype: torch.dtype) -> str:
    place = crop_of(triplet, config.data, crop, config.train.seed)
    made_of = [
        _VERSION,
        models,
        str(dtype),
        config.data.image_px,
        config.data.fit,  # of the concepts too, whose shapes the target's place does not know
        vars(place),
        config.identity.local_grid,
        list(triplet.facts.digests),
        annotation_bytes(triplet).decode(),
    ]
    if guess:
        made_of += [guess, config.identity.box_growth, config.train.seed, triplet.name]
    return sha256(json.dumps(made_of).encode()).hexdigest()


def free_memory(device: torch.device) -> None:
    """Give back the memory of models that nobody uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_whole(file: Path) -> bool:
    """Tell whether a cache file can be read; a damaged one is made again."""
    if not file.is_file():
        return False
    try:
        load_file(file)
    except (SafetensorError, OSError) as error:
        log.warning("%s: damaged (%s); encoding again.", file, error)
        return False
    return True


def _encode_all(
    examples: list[Example],
    config: Config,
    frozen: FrozenModels,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> list[dict[str, Tensor]]:
    """Encode with one model after the other, each gone before the next comes."""
    rows = [_annotations(example) for example in examples]
    phrases = _add_text(rows, examples, frozen, device, dtype, progress)
    progress("encoding with the VAE")
    vae = frozen.base.vae().to(device)
    for row, example in zip(rows, examples):
        row["latents"] = encode_pictures(vae, example.target[None])[0]
        row["concept_latents"] = encode_pictures(vae, example.concepts)
    del vae
    if frozen.identity_config is None:
        for row, example in zip(rows, examples):
            row["identity"] = torch.zeros(len(example.boxes), 0, row["context"].shape[-1])
        return rows
    photograph_tokens = _photograph_tokens(examples, config, frozen, device, dtype, progress)
    progress("encoding identities")
    model = frozen.identity().to(device)
    with torch.no_grad():
        for row, example, subject_tokens, phrase in zip(rows, examples, photograph_tokens, phrases):
            features = SubjectFeatures(tuple(tokens.to(device) for tokens in subject_tokens), phrase.to(device))
            layout = Layout(tuple(Box(*box) for box in example.boxes.double().tolist()))
            row["identity"] = model.extract(features, layout, torch.ones(len(phrase))).subjects.float().cpu()
    return rows


def _annotations(example: Example) -> dict[str, Tensor]:
    return {
        "time_ids": example.time_ids,
        "boxes": example.boxes,
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
