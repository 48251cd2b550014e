"""Everything frozen, encoded once: latents, text, identity tokens; kept on disk by content.

A crop's file is named by the hash of what it is made of: the pictures, the annotations, the crop, the models. The
encoders are loaded one after the other, only if a file is missing, and are gone before the first training step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.checkpoint import save

from ..config import Config
from ..host_diffusers.frozen import FrozenModels
from ..host_diffusers.text import encode_prompts
from .box_growth import box_guesses, grown
from .dataset import Example, annotation_bytes, crop_of, prepare
from .encoded_triplets import EncodedTriplets, stack_rows
from .frozen_encoding import encode_examples, free_memory
from .portions import portions
from .triplet import Triplet

log = logging.getLogger(__name__)
_VERSION = 1  # of the cache; raised whenever an encoding changes


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
    rows_by_crop: dict[int, list[int]] = {}  # missing rows by their crop, whose pictures are encoded once
    for i in missing:
        rows_by_crop.setdefault(i % (len(triplets) * config.data.crops), []).append(i)
    left = iter(rows_by_crop.values())
    for few in portions(prepare(crops[i][0], config.data, crops[i][1], config.train.seed) for i in rows_by_crop):
        rows_of_few = [next(left) for _ in few]
        boxes = [[_boxes(example, *crops[i][1:], config) for i in rows] for example, rows in zip(few, rows_of_few)]
        encoded = encode_examples(few, boxes, config, frozen, device, dtype, progress)
        for example, rows, variants in zip(few, rows_of_few, encoded):
            for i, tensors in zip(rows, variants):
                save(files[i], tensors, {"kind": "encoded triplet", "prompt": example.triplet.prompt})
        free_memory(device)
    return stack_rows([load_file(file) for file in files])


def _boxes(example: Example, crop: int, guess: int, config: Config) -> Tensor:
    """Return a crop's boxes, (S, 4): as they are in guess 0."""
    if not guess:
        return example.boxes
    words = f"{config.train.seed}/{example.triplet.name}/{crop}/boxes {guess}"
    return grown(example.boxes, config.identity.box_growth, words)


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
