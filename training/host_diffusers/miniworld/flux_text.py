"""Prompts with placeholders for the miniworld's Flux: CLIP-G reads them, and knows [ref#1] by a learned embedding.

In Flux T5 gives the context and CLIP-L the pooled embedding. The miniworld has no T5: its CLIP-G gives both, its
penultimate states and its projected summary. As in DreamO (arXiv:2504.16915, section 3.3) placeholders are further
tokens whose input embeddings are learned through the frozen encoder.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from ..flux.words import PlaceholderIds, replaced_rows
from .architectures import Words
from .flux import TEXT_TOKENS


class PlaceholderWords:
    """Captions to ids of `Words`; the id of placeholder k, [ref#k], is `first + k - 1`.

    Args:
        words: the tokenizer, changed in place; the shipped world's by default.
    """

    def __init__(self, words: Words | None = None) -> None:
        self._words = words or Words()
        self.first = len(self._words)  # after the last row of the encoder's table
        self._placeholders = PlaceholderIds(self._words.tokenizer, self.first)

    def ids(self, prompts: list[str]) -> Tensor:
        """Tokenise to (B, TEXT_TOKENS) long, padded with 0 as SDXL pads G."""
        return self._placeholders(self._words.ids(prompts, pad=0, length=TEXT_TOKENS).tolist())

    def places(self, ids: Tensor, references: int) -> Tensor:
        """Find [ref#1], [ref#2] ...: (B, references); 0, the start token, where one is missing."""
        return self._placeholders.places(ids, references)


def with_placeholders(prompt: str, names: tuple[str, ...], slots: tuple[int, ...]) -> str:
    """Turn `a fox is hugging a bear` into `a fox [ref#1] is hugging a bear [ref#2]`.

    Args:
        prompt: holds every name as a word of its own.
        names: nouns, each at its first place.
        slots: the slot of each.
    Raises:
        ValueError: a name is not in the prompt.
    """
    for name, slot in zip(names, slots, strict=True):
        prompt, count = re.subn(rf"\b{re.escape(name)}\b", rf"{name} [ref#{slot}]", prompt, count=1)
        if not count:
            raise ValueError(f"prompt: expected the name {name!r} as a word of its own, got {prompt!r}.")
    return prompt


def encode_ids(text_g: nn.Module, ids: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Encode ids to context and pooled embedding.

    Args:
        text_g: frozen; gradients flow through it to `words`.
        ids: (B, L) of `PlaceholderWords`.
        words: (10, E) embeddings of the placeholders.
    Returns:
        (B, L, E) penultimate states and (B, P) projected.
    """
    out = replaced_rows(text_g, ids, words, lambda rows: text_g(input_ids=rows, output_hidden_states=True))
    return out.hidden_states[-2], out.text_embeds
