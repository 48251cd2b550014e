"""SDXL's two text encoders: prompts as context, phrases as CLIP-L sees them pooled and unprojected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

_LENGTH = 77
_PAD_G = 0  # SDXL pads its second encoder with "!", id 0, and its first with the end token


@dataclass(frozen=True, eq=False)
class TextEncoders:
    """The two encoders, CLIP-L and CLIP-G, and how words become their token ids; None where there is none.

    Attributes:
        ids: texts and the padding id (None: the end token) to (N, 77).
        count_tokens: number of tokens of a text without start and end.
        clip_l, clip_g: ``CLIPTextModel`` and ``CLIPTextModelWithProjection``.
    """

    ids: Callable[[Sequence[str], int | None], Tensor]
    count_tokens: Callable[[str], int]
    clip_l: nn.Module | None
    clip_g: nn.Module | None

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, clip_l: nn.Module | None, clip_g: nn.Module | None) -> TextEncoders:
        """Wrap encoders with one of transformers' CLIP tokenizers, whose vocabulary both share."""

        def ids(texts: Sequence[str], pad: int | None) -> Tensor:
            fill = tokenizer.eos_token_id if pad is None else pad
            rows = [tokenizer(text, truncation=True, max_length=_LENGTH)["input_ids"] for text in texts]
            return torch.tensor([row + [fill] * (_LENGTH - len(row)) for row in rows])

        return cls(ids, lambda text: _count(tokenizer, text), clip_l, clip_g)

    @classmethod
    def of_folder(cls, folder: Path, clip_l: nn.Module | None = None, clip_g: nn.Module | None = None) -> TextEncoders:
        """Wrap encoders with the tokenizer in a folder."""
        return cls.of_tokenizer(CLIPTokenizer.from_pretrained(folder, local_files_only=True), clip_l, clip_g)

    def to(self, device: torch.device) -> TextEncoders:
        self.clip_l.to(device)
        self.clip_g.to(device)
        return self


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) if text.strip() else 0


@torch.no_grad()
def encode_prompts(text: TextEncoders, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encode prompts as SDXL's UNet reads them: both encoders' penultimate layers side by side, and CLIP-G pooled.

    Returns:
        context (N, 77, D) and pooled (N, P).
    """
    device = text.clip_l.device
    of_l = text.clip_l(text.ids(prompts, None).to(device), output_hidden_states=True).hidden_states[-2]
    of_g = text.clip_g(text.ids(prompts, _PAD_G).to(device), output_hidden_states=True)
    return torch.cat((of_l, of_g.hidden_states[-2]), dim=-1), of_g.text_embeds


@torch.no_grad()
def encode_phrases(text: TextEncoders, names: Sequence[str]) -> Tensor:
    """Return CLIP-L's embedding at the end token, after its final norm, without projection: (S, 768) on SDXL."""
    return text.clip_l(text.ids(names, None).to(text.clip_l.device)).pooler_output
