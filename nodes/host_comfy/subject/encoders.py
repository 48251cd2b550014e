"""A scene's photographs and words for a subject adapter."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ....core.scene import Scene, Subject
from ....core.subject.fused_prompt import fused_prompt
from ....core.subject.reference import null_boxes, reference_square
from ..weak_memo import WeakMemo
from .loader import LoadedSubjectAdapter, difference_patches

_remembered = WeakMemo()


@dataclass(frozen=True)
class ImageFeatures:
    """One subject's photograph as the image encoder sees it.

    Attributes:
        patches: (T, I) patch tokens of the last block, before the final norm.
        embedding: (E,) the projected class token, not normalised.
    """

    patches: Tensor
    embedding: Tensor


def encode_photograph(subject: Subject, clip_vision, adapter: LoadedSubjectAdapter) -> ImageFeatures:
    """Encode a subject's first photograph, cut out on white and padded to a square; remembered while it lives.

    Raises:
        ValueError: an encoder of other sizes than the adapter was trained with.
    """

    def compute() -> ImageFeatures:
        square = reference_square(subject.photographs[0], None if subject.mask is None else subject.mask[0])
        output = clip_vision.encode_image(rearrange(square, "c h w -> 1 h w c"), crop=True)
        return ImageFeatures(output["last_hidden_state"][0, 1:].float().cpu(), output["image_embeds"][0].float().cpu())

    features = _remembered.once((subject.photographs, clip_vision.model), "subject diffusion", compute)
    config = adapter.config
    faults = []
    if tuple(features.patches.shape) != (config.tokens, config.image_width):
        faults.append(
            f"it gives {tuple(features.patches.shape)} patch tokens, {adapter.file} was trained with "
            f"{(config.tokens, config.image_width)}"
        )
    if features.embedding.shape[0] != config.embedding_width:
        faults.append(
            f"its embedding has {features.embedding.shape[0]} numbers, {adapter.file} was trained with "
            f"{config.embedding_width}"
        )
    if faults:
        raise ValueError(
            f"clip_vision: {'; '.join(faults)}. Load the encoder it belongs with (CLIP ViT-H/14 as published)."
        )
    return features


def check_count(scene: Scene, adapter: LoadedSubjectAdapter) -> None:
    """Refuse a scene without subjects, or with more than the adapter knows."""
    most = adapter.config.max_subjects
    if not 1 <= len(scene.subjects) <= most:
        raise ValueError(
            f"scene: {adapter.file} was trained with 1 to {most} subjects, got {len(scene.subjects)}. "
            "Leave some out, or use another adapter."
        )


@torch.inference_mode()
def object_tokens(scene: Scene, clip_vision, adapter: LoadedSubjectAdapter) -> Tensor:
    """Make the object tokens of a scene, once per run.

    Returns:
        (1, max_subjects * T, D) float32 on the CPU; subjects that are not there are the null features.
    """
    check_count(scene, adapter)
    config, count = adapter.config, len(scene.subjects)
    patches = torch.zeros(1, config.max_subjects, config.tokens, config.image_width)
    boxes = torch.zeros(1, config.max_subjects, 4)
    for index, subject in enumerate(scene.subjects):
        patches[0, index] = encode_photograph(subject, clip_vision, adapter).patches
        boxes[0, index] = subject.box.tensor()
    present = torch.arange(config.max_subjects)[None] < count
    module = adapter.ready()
    device = adapter.patcher.load_device
    boxes = null_boxes(boxes, config.coordinates).to(device)
    tokens = module.proj(patches.to(device), boxes, present.to(device), config.locate_single)
    return tokens.float().cpu()


@torch.inference_mode()
def encode_fused_prompt(clip, clip_vision, scene: Scene, adapter: LoadedSubjectAdapter, prompt: str):
    """Encode "prompt, the {name} is sks, ..." with each subject's vector in the place of its placeholder.

    Returns:
        CONDITIONING, and the CLIP that made it: with what the file trains of its encoders, which the empty text of
        guidance's other branches was encoded with in training.

    Raises:
        ValueError: a prompt with the placeholder, an encoder of another width, or a prompt too long for its clauses.
    """
    check_count(scene, adapter)
    config = adapter.config
    if not config.fused_words:  # no word of the prompt stands for a subject
        clip = _with_trained_text(clip, adapter)
        return clip.encode_from_tokens_scheduled(clip.tokenize(prompt)), clip
    text = fused_prompt(prompt, [subject.name for subject in scene.subjects], config.placeholder)
    module, device = adapter.ready(), adapter.patcher.load_device
    embeddings = [encode_photograph(subject, clip_vision, adapter).embedding for subject in scene.subjects]
    clip = _with_trained_text(clip, adapter)
    words = [word.float().cpu() for word in module.words(torch.stack(embeddings).to(device))]
    tokens = clip.tokenize(text)
    for vectors in words:  # (S, W) of each encoder
        encoder = _encoder_of_width(clip, vectors.shape[1], adapter.file)
        tokens[encoder] = _with_words(tokens[encoder], list(vectors), _placeholder(clip, encoder, config.placeholder))
    return clip.encode_from_tokens_scheduled(tokens), clip


def _placeholder(clip, encoder: str, word: str) -> int:
    """Look up the token of the word that stands for a subject."""
    blank = {token for chunk in clip.tokenize("")[encoder] for token, *_ in chunk}
    (placeholder, *others) = {token for chunk in clip.tokenize(word)[encoder] for token, *_ in chunk} - blank
    if others:
        raise ValueError(f"clip: '{word}' is {len(others) + 1} tokens of its tokenizer, expected one.")
    return placeholder


def _with_words(chunks: list, words: list[Tensor], placeholder: int) -> list:
    """Put the subjects' vectors in the places of the placeholder, in order."""
    places = sum(_is(token, placeholder) for chunk in chunks for token, *_ in chunk)
    if places > len(words):
        raise ValueError(
            f"prompt: it has the adapter's placeholder {places} times for {len(words)} subjects, as a part of another "
            "word. Use another word."
        )
    if places < len(words):
        raise ValueError("prompt: it is too long for the clauses that name the subjects. Shorten it.")
    return [[(words.pop(0) if _is(token, placeholder) else token, *rest) for token, *rest in chunk] for chunk in chunks]


def _is(token: object, number: int) -> bool:
    return isinstance(token, numbers.Integral) and token == number


def _encoder_of_width(clip, width: int, file: str) -> str:
    """Find the key of the CLIP's tokens whose encoder has word embeddings of a width."""
    widths = {}
    for key in clip.tokenize(""):
        encoder = getattr(clip.cond_stage_model, f"clip_{key}", None)
        if encoder is not None:
            widths[key] = encoder.transformer.get_input_embeddings().weight.shape[1]
    for key, own_width in widths.items():
        if own_width == width:
            return key
    raise ValueError(
        f"clip: {file} makes words of width {width}, the text encoders have {sorted(widths.values())}. "
        "Connect the CLIP of the base that it was trained on."
    )


def _with_trained_text(clip, adapter: LoadedSubjectAdapter):
    """Clone the CLIP with the trained text encoders; return the CLIP itself where the file has none."""
    config, trained = adapter.config, {}
    for prefix, word in (("text_encoder.", config.word), ("text_encoder_2.", config.word_2)):
        of_encoder = {
            key.removeprefix(prefix): tensor
            for key, tensor in adapter.changes.items()
            if key.startswith(prefix) and tensor.is_floating_point()
        }
        if of_encoder and word:
            encoder = _encoder_of_width(clip, word[1], adapter.file)
            trained |= {f"clip_{encoder}.transformer.{key}": tensor for key, tensor in of_encoder.items()}
    if not trained:
        return clip
    clone = clip.clone()
    own = clone.patcher.get_key_patches()
    present = {key: tensor for key, tensor in trained.items() if key in own}
    applied = clone.add_patches(difference_patches(present, own), 1.0)
    if len(applied) < len(trained):
        raise ValueError(
            f"clip: {adapter.file} trains {len(trained)} tensors of a text encoder, of which "
            f"{len(trained) - len(applied)} are not in this one. Connect the CLIP of the base that it was "
            "trained on."
        )
    return clone
