"""The placeholders [ref#1] ... [ref#9] as tokens of a clone of a Flux CLIP: of its T5, or of the miniworld's CLIP-G.

The clone's tokenizer is a copy with ten more tokens. Where it would give their numbers it gives their learned
embeddings, as ComfyUI's textual inversion does, so every node that encodes a prompt with the clone understands them,
weights in parentheses included. Where they stand is written into the CONDITIONING.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....core.routing.placeholders import WORDS
from .wrapper import WORDS_KEY


@dataclass(frozen=True)
class PlaceholderTarget:
    """The encoder of a CLIP that reads placeholders.

    Attributes:
        part: its attribute of the CLIP's tokenizer and model.
        key: of its tokens.
        marks_spaces: its tokenizer writes spaces as tokens, as T5's does.
    """

    part: str
    key: str
    marks_spaces: bool


T5, CLIP_G = PlaceholderTarget("t5xxl", "t5xxl", True), PlaceholderTarget("clip_g", "g", False)


class PlaceholderTokenizer:
    """A tokenizer that knows the placeholders; everything else is the tokenizer it was made from."""

    def __init__(self, before, table: Tensor, marks_spaces: bool) -> None:
        self._before = before
        self._knowing = copy.copy(before)
        self._knowing.tokenizer = _with_words(before.tokenizer, marks_spaces)
        numbers = self._knowing.tokenizer.convert_tokens_to_ids(list(WORDS))
        self._rows = dict(zip(numbers, table.float().unbind(0), strict=True))
        self._slots = {id(row): slot for slot, row in enumerate(self._rows.values(), start=1) if slot < len(WORDS)}

    def __getattr__(self, name: str):
        if name.startswith("__") or name == "_before":  # asked while it is being copied
            raise AttributeError(name)
        return getattr(self._before, name)

    def __deepcopy__(self, memo: dict) -> PlaceholderTokenizer:
        return self

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options) -> list[list[tuple]]:
        """As ComfyUI's, embeddings in the places of the placeholders; a text without them is left to ComfyUI's."""
        if not any(word in text for word in WORDS):
            return self._before.tokenize_with_weights(text, return_word_ids, **options)
        chunks = self._knowing.tokenize_with_weights(text, return_word_ids, **options)
        return [[(self._row(token), *rest) for token, *rest in chunk] for chunk in chunks]

    def _row(self, token):
        return self._rows.get(token, token) if isinstance(token, int) else token

    def places(self, chunks: list[list[tuple]]) -> dict[int, tuple[int, ...]]:
        """By number, where placeholders stand in the text sequence."""
        found: dict[int, list[int]] = {}
        tokens = [token for chunk in chunks for token, *_ in chunk]
        for place, token in enumerate(tokens):
            if id(token) in self._slots:
                found.setdefault(self._slots[id(token)], []).append(place)
        return {slot: tuple(places) for slot, places in found.items()}


def _with_words(tokenizer, marks_spaces: bool):
    """Return a copy of a tokenizer with the placeholders; of T5's with spaces around them as DreamO was trained.

    Version 5 of transformers splits at spaces first, and so loses the one before an added token and puts one after it.
    The tokenizer's own file, and version 4, only mark the beginning of a text.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    twin = copy.deepcopy(tokenizer)
    twin.add_tokens(list(WORDS), special_tokens=False)
    if not marks_spaces:
        return twin
    backend = twin.backend_tokenizer
    backend.normalizer = normalizers.Sequence([backend.normalizer, normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    return twin


_CLIP: Any = object  # the class of the CLIP that is cloned, known when it is


class PlaceholderCLIPMixin(_CLIP):
    """What a CLIP learns: to write the places of the placeholders into the CONDITIONING, and to stay so when cloned."""

    reader: PlaceholderTarget

    def clone(self):
        return _copy_as(type(self), super().clone())

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict=None, show_pbar=True):
        places = getattr(self.tokenizer, self.reader.part).places(tokens[self.reader.key])
        return super().encode_from_tokens_scheduled(
            tokens, unprojected=unprojected, show_pbar=show_pbar, add_dict={**(add_dict or {}), WORDS_KEY: places}
        )


def _copy_as(kind: type, clip):
    twin = object.__new__(kind)
    twin.__dict__.update(clip.__dict__)
    return twin


def with_placeholders(clip, table: Tensor, reader: PlaceholderTarget = T5):
    """Return a clone of a Flux CLIP that knows the placeholders.

    Args:
        table: (10, E), E the width of its reader.
        reader: T5, or the miniworld's CLIP_G.

    Raises:
        ValueError: a CLIP without T5, or one of another width.
    """
    encoder = getattr(clip.cond_stage_model, reader.part, None)
    if encoder is None or not hasattr(clip.tokenizer, reader.part):
        raise ValueError(
            "clip: expected Flux's text encoders (CLIP-L and T5-XXL), got one without T5 "
            f"({type(clip.cond_stage_model).__name__}). Load them with DualCLIPLoader, type flux."
        )
    width = encoder.transformer.get_input_embeddings().weight.shape[1]
    if table.shape[1] != width:
        raise ValueError(
            f"clip: its T5 has width {width}, the placeholders' embeddings {table.shape[1]}. They belong "
            "to T5-XXL as Flux uses it."
        )
    clone = clip.clone()
    kind = type(clone)
    if not isinstance(clone, PlaceholderCLIPMixin):
        kind = type("PlaceholderCLIP", (PlaceholderCLIPMixin, kind), {"reader": reader})
    twin = _copy_as(kind, clone)
    twin.tokenizer = copy.copy(clone.tokenizer)
    before = getattr(clone.tokenizer, reader.part)
    before = getattr(before, "_before", before)
    setattr(twin.tokenizer, reader.part, PlaceholderTokenizer(before, table, reader.marks_spaces))
    return twin
