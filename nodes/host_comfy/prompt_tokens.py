"""The tokens of a prompt as SDXL's text encoders put them into the CONDITIONING."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...core.prompt.name_tokens import find_name_tokens

ENCODERS = ("l", "g")  # CLIP-L and CLIP-G: their tokens stand at the same positions, side by side in the channels


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """The tokenizers of a CLIP, and the widths of the embeddings that its encoders take.

    Attributes:
        tokenizer: ComfyUI's, of all encoders.
        widths: for each encoder the width of its token embeddings; it leaves out an embedding of another width.
    """

    tokenizer: Any
    widths: dict[str, int]

    @classmethod
    def of(cls, clip) -> PromptTokens:
        """Take them from a CLIP."""
        encoders = {name: getattr(clip.cond_stage_model, f"clip_{name}", None) for name in ENCODERS}
        return cls(
            clip.tokenizer,
            {
                name: encoder.transformer.get_input_embeddings().weight.shape[1]
                for name, encoder in encoders.items()
                if encoder is not None
            },
        )

    def find(self, texts: dict[str, str], names: tuple[str, ...]) -> list[tuple[int, ...]]:
        """Find the positions of each name in the CONDITIONING of a prompt.

        Args:
            texts: for each encoder its text.

        Returns:
            For each name its positions; empty where no encoder has it, or they have it at different positions.
        """
        by_encoder = []
        for encoder in self.widths:
            words = self._words(texts[encoder], encoder)
            tokens = [[token for _, token in self._words(name, encoder)] for name in names]
            places = find_name_tokens([token for _, token in words], tokens)
            by_encoder.append([tuple(words[index][0] for index in place) for place in places])
        by_name = [{place for place in places if place} for places in zip(*by_encoder)]
        return [places.pop() if len(places) == 1 else () for places in by_name]

    def length(self, texts: dict[str, str]) -> int:
        """Count the positions of the CONDITIONING of a prompt."""
        return max(sum(map(len, self._chunks(texts[encoder], encoder))) for encoder in self.widths)

    def _chunks(self, text: str, encoder: str) -> list[list[tuple]]:
        """Chunks of 77 (token, weight): an id, or a tensor or dictionary for what is no word."""
        return self.tokenizer.tokenize_with_weights(text)[encoder]

    def _words(self, text: str, encoder: str) -> list[tuple[int, int | None]]:
        """List the position of each token between a chunk's start and end, and its id (None: a learned embedding)."""
        tokenizer = getattr(self.tokenizer, f"clip_{encoder}")
        words, begin = [], 0
        for chunk in self._chunks(text, encoder):
            tokens = [token for token, *_ in chunk if not self._is_left_out(token, encoder)]
            for position, token in enumerate(tokens):
                is_id = isinstance(token, int)
                if is_id and token == tokenizer.end_token and position > 0:
                    break  # padding follows
                if not (is_id and token == tokenizer.start_token):
                    words.append((begin + position, token if is_id else None))
            begin += len(chunk)  # what an encoder leaves out it pads at the end
        return words

    def _is_left_out(self, token: object, encoder: str) -> bool:
        return isinstance(token, Tensor) and token.shape[-1] != self.widths[encoder]
