"""Prompts with subjects in the places of their placeholders, through the text encoders of a base.

The vectors are put behind the token embedding by a hook of torch's own, so no method of an encoder is replaced and
gradients flow to them (arXiv:2307.11410, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from core.subject.fused_prompt import replace_embeddings

from .base_model import BaseModelFiles
from .text import TextEncoders

LENGTH = 77


class PromptTokens:
    """How a base's tokenizer sees prompts with placeholders.

    Args:
        text: of the base, with or without its encoders.
        encoders: how many the base has, one (SD) or two (SDXL).
        placeholder: the word that stands for a subject.

    Raises:
        ValueError: the tokenizer splits the placeholder.
    """

    def __init__(self, text: TextEncoders, encoders: int, placeholder: str) -> None:
        self._text, self._encoders = text, encoders
        count = text.count_tokens(placeholder)
        if count != 1:
            raise ValueError(
                f"adapter.placeholder: '{placeholder}' is {count} tokens of the base's tokenizer, expected one. Choose "
                "a short word that no prompt needs."
            )
        self.placeholder = int(self.ids([placeholder])[0][0, 1])
        self.tokens_between = 1 + text.count_tokens("is")  # of a label's last token and its placeholder

    @classmethod
    def of_base(cls, base: BaseModelFiles, placeholder: str) -> PromptTokens:
        """Open the tokenizer of a base on disk; its weights are not read.

        Raises:
            ValueError: the tokenizer splits the placeholder.
        """
        return cls(base.tokens(), 2 if base.text_widths[1] else 1, placeholder)

    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Tokenise for each encoder, (N, 77)."""
        return tuple(self._text.ids(prompts, pad) for pad in (None, 0)[: self._encoders])

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text without start and end."""
        return self._text.count_tokens(text)


class FusedText(nn.Module):
    """The text encoders of a base, one (SD) or two (SDXL).

    Args:
        text: as the base opened them.
        tokens: of the same base.
    """

    def __init__(self, text: TextEncoders, tokens: PromptTokens) -> None:
        super().__init__()
        self.encoders = nn.ModuleList([part for part in (text.clip_l, text.clip_g) if part is not None])
        self.tokens = tokens

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each encoder in a file."""
        return ("text_encoder", "text_encoder_2")[: len(self.encoders)]

    def forward(self, ids: Sequence[Tensor], words: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor | None]:
        """Encode.

        Args:
            ids: for each encoder (B, 77), on its device.
            words: for each encoder and row (S, W), as many as the row has placeholders; an empty list fuses nothing.

        Returns:
            The context (B, 77, D), and SDXL's pooled embedding (B, P) or None.
        """
        states, pooled = [], None
        for number, encoder in enumerate(self.encoders):
            placeholder = self.tokens.placeholder
            with _fused(encoder, ids[number], words[number], placeholder) if words else nullcontext():
                out = encoder(input_ids=ids[number], output_hidden_states=True)
            if len(self.encoders) == 1:
                return out.last_hidden_state, None
            states.append(out.hidden_states[-2])
            pooled = getattr(out, "text_embeds", None)
        return torch.cat(states, dim=-1), pooled


@contextmanager
def _fused(encoder: nn.Module, ids: Tensor, words: Sequence[Tensor], placeholder: int) -> Iterator[None]:
    """Let the token embedding of an encoder give the subjects' vectors at the placeholders inside the context."""
    hook = encoder.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: replace_embeddings(output, ids, words, placeholder)
    )
    try:
        yield
    finally:
        hook.remove()


def trained_text(text: FusedText, which: str) -> dict[str, nn.Parameter]:
    """List the parameters of the encoders that are trained, by a file's keys.

    Args:
        text: the encoders.
        which: ``frozen``: none; ``layers``: all but the embeddings of tokens; ``all``.
    """
    if which == "frozen":
        return {}
    return {
        key: parameter
        for name, encoder in zip(text.names, text.encoders)
        for key, parameter in encoder_keys(name, encoder).items()
        if which == "all" or "token_embedding" not in key
    }


def encoder_keys(name: str, encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Name an encoder's parameters as a file does: transformers 5 leaves out "text_model.", files have it."""
    return {
        f"{name}.{key if key.startswith(('text_model.', 'text_projection')) else 'text_model.' + key}": parameter
        for key, parameter in encoder.named_parameters()
    }
