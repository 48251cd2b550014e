"""Prompts with placeholders for the miniworld's Flux: CLIP-G reads them, and knows [ref#1] by a learned embedding.

In Flux T5 gives the context and CLIP-L the pooled embedding. The miniworld has no T5: its CLIP-G gives both, its
penultimate states and its projected summary. As in DreamO (arXiv:2504.16915, section 3.3) placeholders are further
tokens whose input embeddings are learned through the frozen encoder.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from core.routing.placeholders import WORDS

from ..flux.words import replaced_rows
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
        self._words.tokenizer.add_tokens(list(WORDS))
        added = self._words.tokenizer.convert_tokens_to_ids(list(WORDS))
        self._numbers = {number: self.first + index for index, number in enumerate(added)}

    def ids(self, prompts: list[str]) -> Tensor:
        """(B, TEXT_TOKENS) long, padded with 0 as SDXL pads G."""
        found = self._words.ids(prompts, pad=0, length=TEXT_TOKENS)
        return torch.tensor([[self._numbers.get(token, token) for token in row] for row in found.tolist()])

    def places(self, ids: Tensor, references: int) -> Tensor:
        """(B, references) where [ref#1], [ref#2] ... stand; 0, the start token, where one does not."""
        slots = self.first + torch.arange(references)
        return (ids[:, None] == slots[:, None]).int().argmax(dim=-1)


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
            raise ValueError(f"prompt: expected the name {name!r} in {prompt!r}")
    return prompt


def encode_ids(text_g: nn.Module, ids: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Context and pooled embedding.

    Args:
        text_g: frozen; gradients flow through it to `words`.
        ids: (B, L) of `PlaceholderWords`.
        words: (10, E) embeddings of the placeholders.
    Returns:
        (B, L, E) penultimate states and (B, P) projected.
    """
    out = replaced_rows(text_g, ids, words, lambda known: text_g(input_ids=known, output_hidden_states=True))
    return out.hidden_states[-2], out.text_embeds
