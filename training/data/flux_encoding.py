"""Everything frozen, encoded once for a Flux-class model: prompts, targets, references; kept on disk by content.

As `encoding_cache`: a crop's file is named by the hash of what it is made of; text encoders and VAE are loaded one
after the other, only if a file is missing, and are gone before the first training step.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from core.checkpoint import save

from ..common.errors import UserErrors
from ..common.image_files import to_tensor
from ..common.sheets import to_picture
from ..config import FluxConfig
from ..host_diffusers.flux.files import FluxBaseFiles
from ..host_diffusers.flux.text import FluxText
from ..host_diffusers.images import encode_pictures
from .columns import two_columns
from .dataset import Example, annotation_bytes, crop_of, prepare
from .encoded_flux import EncodedFlux, stack_flux_rows
from .encoding_cache import is_whole
from .frozen_encoding import free_memory
from .portions import portions
from .prompt_spans import find_phrase
from .square_crop import SquareCrop
from .triplet import Triplet

log = logging.getLogger(__name__)
_VERSION = 2  # of the cache; raised whenever an encoding changes
Crop = tuple[Triplet, int]


def encode_flux(
    folders: Sequence[Sequence[Triplet]],
    config: FluxConfig,
    base: FluxBaseFiles,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[str], None],
) -> EncodedFlux:
    """Encode every crop of every triplet, or read it from the cache.

    Args:
        folders: of each folder of the config its triplets.
        device, dtype: where and in which precision the text encoders run; the VAE in float32.
        progress: called with what is being done.
    """
    crops = [(triplet, crop) for of_folder in folders for triplet in of_folder for crop in range(config.data.crops)]
    sources = [index for index, of_folder in enumerate(folders) for _ in range(len(of_folder) * config.data.crops)]
    pictures: list[tuple[Crop, ...]] = [(crop,) for crop in crops]
    if config.wants_columns:
        pictures += zip(crops, neighbours(folders, config.data.crops))
        sources += sources
    models = base.fingerprint()
    files = [_file(config, [models, str(dtype), *(_made_of(*crop, config) for crop in pair)]) for pair in pictures]
    empty_file = _file(config, [models, str(dtype), "empty prompt"])
    missing = [index for index, file in enumerate(files) if not is_whole(file)]
    if missing:
        progress(f"encoding {len(missing)} of {len(pictures)} pictures")
    left = iter(missing)
    for few in portions(_example(pictures[index], config) for index in missing):
        for row, example in zip(_encode_all(few, config, base, device, dtype, empty_file, progress), few):
            save(files[next(left)], row, {"kind": "encoded triplet", "prompt": example.triplet.prompt})
        free_memory(device)
    if not is_whole(empty_file):
        progress("encoding the empty prompt")
        _keep_empty_prompt(base.parts.text(dtype).to(device), empty_file)
        free_memory(device)
    rows = [load_file(file) for file in files]
    for row, source, pair in zip(rows, sources, pictures):
        row["source"], row["columns"] = torch.tensor(source), torch.tensor(float(len(pair) - 1))
        row.setdefault("references", row["concept_latents"])  # of one size they are the same
    return stack_flux_rows(rows, load_file(empty_file))


def neighbours(folders: Sequence[Sequence[Triplet]], crops: int) -> list[Crop]:
    """Name the crop beside each crop: the same one of the folder's next triplet."""
    return [
        (triplets[(index + 1) % len(triplets)], crop)
        for triplets in folders
        for index in range(len(triplets))
        for crop in range(crops)
    ]


def encode_negative_flux(
    config: FluxConfig, base: FluxBaseFiles, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Encode the negative prompt: context (1, L, E) and pooled (1, P), from the cache if it is there."""
    file = _file(config, [base.fingerprint(), str(dtype), "prompt", config.samples.negative])
    if not is_whole(file):
        save(file, _prompts(base.parts.text(dtype).to(device), [config.samples.negative]), {"kind": "encoded prompt"})
        free_memory(device)
    tensors = load_file(file)
    return tensors["context"], tensors["pooled"]


def _file(config: FluxConfig, made_of: list) -> Path:
    key = sha256(json.dumps([_VERSION, "flux", *made_of]).encode()).hexdigest()
    return Path(config.output.cache) / f"{key}.safetensors"


def _made_of(triplet: Triplet, crop: int, config: FluxConfig) -> list:
    place = crop_of(triplet, config.data, crop, config.train.seed)
    return [
        config.data.image_px,
        config.data.reference_px,
        config.data.fit,
        vars(place),
        list(triplet.facts.digests) if triplet.facts else [],
        annotation_bytes(triplet).decode(),
    ]


def _example(crops: tuple[Crop, ...], config: FluxConfig) -> Example:
    examples = [prepare(triplet, config.data, crop, config.train.seed) for triplet, crop in crops]
    return examples[0] if len(examples) == 1 else two_columns(*examples)


def _encode_all(
    examples: list[Example],
    config: FluxConfig,
    base: FluxBaseFiles,
    device: torch.device,
    dtype: torch.dtype,
    empty_file: Path,
    progress: Callable[[str], None],
) -> list[dict[str, Tensor]]:
    """Encode with one model after the other, each gone before the next comes; the empty prompt if it lacks yet."""
    rows = [_annotations(example) for example in examples]
    progress("encoding prompts")
    text = base.parts.text(dtype).to(device)
    _keep_empty_prompt(text, empty_file)
    for row, example in zip(rows, examples):
        row |= _words(text, example)
    del text
    free_memory(device)
    progress("encoding with the VAE")
    vae = base.parts.vae().to(device)
    for row, example in zip(rows, examples):
        row["latents"] = encode_pictures(vae, example.target[None])[0]
        row["concept_latents"] = encode_pictures(vae, example.concepts)
        if config.data.reference_px != config.data.image_px:
            row["references"] = encode_pictures(vae, _references(example, config))
    return rows


def _keep_empty_prompt(text: FluxText, file: Path) -> None:
    if not is_whole(file):
        save(file, _prompts(text, [""]), {"kind": "encoded prompt"})


def _prompts(text: FluxText, prompts: list[str]) -> dict[str, Tensor]:
    """Encode prompts to ``context`` (N, L, E) and ``pooled`` (N, P), P 0 where there is none."""
    context, pooled = text.encode(prompts)
    pooled = context.new_zeros(len(prompts), 0) if pooled is None else pooled
    return {"context": context.cpu().contiguous(), "pooled": pooled.cpu().contiguous()}


def _words(text: FluxText, example: Example) -> dict[str, Tensor]:
    """Encode both prompts of a crop, and find the predicate and the placeholders in them."""
    triplet = example.triplet
    try:
        prompts = [triplet.prompt, text.name(triplet.prompt, triplet.names)]
    except ValueError as error:
        raise UserErrors(f"triplet {triplet.name}: {error}") from error
    encoded = _prompts(text, prompts)
    length = encoded["context"].shape[1]
    span, unread = torch.zeros(2, length), False
    for row, prompt in zip(span, prompts):
        phrase = find_phrase(prompt, triplet.predicate)
        if phrase is None:
            continue
        first, last = (text.position(prompt, end) for end in phrase)
        if first < last <= length:
            row[first:last] = 1 / (last - first)
        else:
            unread = True
    if unread:
        log.warning("triplet %s: '%s' lies beyond the %d tokens read.", triplet.name, triplet.predicate, length)
    return {**encoded, "span": span, "places": torch.tensor(text.places(prompts[1], len(triplet.names)))}


def _annotations(example: Example) -> dict[str, Tensor]:
    return {
        "shares": example.shares,
        "region": example.region,
        "keypoints_target": example.keypoints_target,
        "keypoints_concepts": example.keypoints_concepts,
        "visible": example.visible.float(),
        "present": torch.ones(len(example.boxes)),
    }


def _references(example: Example, config: FluxConfig) -> Tensor:
    """Cut the references' squares from the photographs at their own size, (S, 3, px, px)."""
    squares = []
    for photograph in example.photographs:
        place = SquareCrop.centred(photograph.shape[-1], photograph.shape[-2], config.data.fit)
        squares.append(to_tensor(place.crop_image(to_picture(photograph), config.data.reference_px)))
    return torch.stack(squares)
