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
from ..scene.recording_clip import copy_as
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
    """A tokenizer with the placeholders; everything else is the tokenizer it was made from."""

    def __init__(self, before, table: Tensor, marks_spaces: bool) -> None:
        self._before = before
        self._extended = copy.copy(before)
        self._extended.tokenizer = _with_words(before.tokenizer, marks_spaces)
        numbers = self._extended.tokenizer.convert_tokens_to_ids(list(WORDS))
        self._rows = dict(zip(numbers, table.float().unbind(0), strict=True))
        self._slots = {id(row): slot for slot, row in enumerate(self._rows.values(), start=1) if slot < len(WORDS)}

    def __getattr__(self, name: str):
        if name.startswith("__") or name == "_before":  # asked while it is being copied
            raise AttributeError(name)
        return getattr(self._before, name)

    def __deepcopy__(self, memo: dict) -> PlaceholderTokenizer:
        return self

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options) -> list[list[tuple]]:
        """Tokenize as ComfyUI does, with embeddings in the places of the placeholders, if there are any."""
        if not any(word in text for word in WORDS):
            return self._before.tokenize_with_weights(text, return_word_ids, **options)
        chunks = self._extended.tokenize_with_weights(text, return_word_ids, **options)
        return [[(self._row(token), *rest) for token, *rest in chunk] for chunk in chunks]

    def _row(self, token):
        return self._rows.get(token, token) if isinstance(token, int) else token

    def places(self, chunks: list[list[tuple]]) -> dict[int, tuple[int, ...]]:
        """Find the positions of the placeholders in the text sequence, by their numbers."""
        positions: dict[int, list[int]] = {}
        tokens = [token for chunk in chunks for token, *_ in chunk]
        for position, token in enumerate(tokens):
            if id(token) in self._slots:
                positions.setdefault(self._slots[id(token)], []).append(position)
        return {slot: tuple(places) for slot, places in positions.items()}


def _with_words(tokenizer, marks_spaces: bool):
    """Copy a tokenizer and add the placeholders; in T5's with spaces around them as DreamO was trained.

    Version 5 of transformers splits at spaces first, and so loses the one before an added token and puts one after it.
    The tokenizer's own file, and version 4, only mark the beginning of a text.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    extended = copy.deepcopy(tokenizer)
    extended.add_tokens(list(WORDS), special_tokens=False)
    if not marks_spaces:
        return extended
    backend = extended.backend_tokenizer
    backend.normalizer = normalizers.Sequence([backend.normalizer, normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first")
    return extended


_CLIP: Any = object  # the class of the CLIP that is cloned, known when it is


class PlaceholderCLIPMixin(_CLIP):
    """Mixin that writes the positions of the placeholders into the CONDITIONING; its clones do so too."""

    reader: PlaceholderTarget

    def clone(self, *args, **kwargs):
        return copy_as(type(self), super().clone(*args, **kwargs))

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict=None, show_pbar=True):
        places = getattr(self.tokenizer, self.reader.part).places(tokens[self.reader.key])
        return super().encode_from_tokens_scheduled(
            tokens, unprojected=unprojected, show_pbar=show_pbar, add_dict={**(add_dict or {}), WORDS_KEY: places}
        )


def with_placeholders(clip, table: Tensor, reader: PlaceholderTarget = T5):
    """Clone a Flux CLIP and add the placeholders to it.

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
    clone = copy_as(kind, clone)
    before = getattr(clone.tokenizer, reader.part)
    before = getattr(before, "_before", before)
    clone.tokenizer = copy.copy(clone.tokenizer)
    setattr(clone.tokenizer, reader.part, PlaceholderTokenizer(before, table, reader.marks_spaces))
    return clone
