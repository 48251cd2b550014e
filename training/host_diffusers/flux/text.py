"""Prompts as Flux-class transformers read them, and where words stand in them.

    FLUX.1      T5's states; CLIP-L's pooled embedding                        padded on the right, padding is read
    Klein       Qwen3's hidden states 9, 18, 27 side by side, chat template   padded on the right
    FLUX.2 dev  Mistral's 10, 20, 30, chat template with a system message
    miniworld   CLIP-G's penultimate states and its pooled embedding

With DreamO's table of words, [ref#1] ... are further input embeddings of T5 (of CLIP-G in the miniworld). Elsewhere
references are "image 1", "image 2", as Black Forest Labs documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import format_input
from torch import Tensor, nn

from core.prompt.wording import REFERENCES, Mention, bind
from core.routing.placeholders import WORDS

from ..miniworld.architectures import Words
from ..miniworld.flux import TEXT_TOKENS
from ..miniworld.flux_text import PlaceholderWords, with_placeholders
from .words import PlaceholderIds, replaced_rows

CLIP_LENGTH = 77
DEFAULT_TOKENS = {"t5": 256, "qwen3": 512, "mistral3": 512, "clip": TEXT_TOKENS}  # T5: what ComfyUI pads to


@dataclass(frozen=True, eq=False)
class FluxText:
    """The text encoders of a base.

    Attributes:
        encode: prompts to context (N, L, E) and pooled (N, P) or None, on the encoders' device.
        position: of a prompt and a number of its characters: the token after them.
        places: of a prompt and a number of references: the token of each one's placeholder, 0 where it has none.
        name: a prompt with its references named, of the prompt and the subjects' words in order.
        modules: the encoders.
    """

    encode: Callable[[Sequence[str]], tuple[Tensor, Tensor | None]]
    position: Callable[[str, int], int]
    places: Callable[[str, int], list[int]]
    name: Callable[[str, Sequence[str]], str]
    modules: tuple[nn.Module, ...]

    def to(self, device: torch.device) -> FluxText:
        for module in self.modules:
            module.to(device)
        return self


def name_images(prompt: str, names: Sequence[str]) -> str:
    """Name the references as pictures of a list: "the fox from image 1"."""
    return bind(prompt, [Mention(name, f"image {slot}") for slot, name in enumerate(names, 1)], REFERENCES).text


def name_placeholders(prompt: str, names: Sequence[str]) -> str:
    """Name the references by DreamO's words: "the fox from [ref#1]"."""
    return bind(prompt, [Mention(name, f"[ref#{slot}]") for slot, name in enumerate(names, 1)], REFERENCES).text


def _no_places(prompt: str, references: int) -> list[int]:
    return [0] * references


def flux1_text(
    clip_tokenizer: Any, clip_l: nn.Module, t5_tokenizer: Any, t5: nn.Module, length: int, words: Tensor | None
) -> FluxText:
    """Wrap FLUX.1's two encoders.

    Args:
        clip_tokenizer, t5_tokenizer: of transformers.
        clip_l, t5: ``CLIPTextModel`` and ``T5EncoderModel``.
        length: tokens that T5's prompts are padded to.
        words: (10, E) DreamO's table, or None.
    """
    placeholders = PlaceholderIds(t5_tokenizer, t5.get_input_embeddings().num_embeddings) if words is not None else None

    def ids(prompts: Sequence[str]) -> Tensor:
        padded = t5_tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length)["input_ids"]
        return placeholders(padded) if placeholders else torch.tensor(padded)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        short = clip_tokenizer(list(prompts), padding="max_length", truncation=True, max_length=CLIP_LENGTH)
        pooled = clip_l(torch.tensor(short["input_ids"], device=clip_l.device)).pooler_output
        if words is None:
            return t5(ids(prompts).to(t5.device))[0], pooled
        return replaced_rows(t5, ids(prompts), words, lambda rows: t5(rows)[0]), pooled

    def position(prompt: str, characters: int) -> int:
        return _tokens(t5_tokenizer, prompt[:characters].rstrip())

    def places(prompt: str, references: int) -> list[int]:
        return placeholders.places(ids([prompt]), references)[0].tolist() if placeholders else [0] * references

    return FluxText(encode, position, places, name_placeholders if placeholders else name_images, (clip_l, t5))


def qwen_text(tokenizer: Any, qwen: nn.Module, length: int) -> FluxText:
    """Wrap Klein's encoder, ``Qwen3ForCausalLM``, as its pipeline calls it."""

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, None]:
        get = Flux2KleinPipeline._get_qwen3_prompt_embeds
        return get(qwen, tokenizer, list(prompts), max_sequence_length=length), None

    def position(prompt: str, characters: int) -> int:
        chat = [{"role": "user", "content": prompt}]
        whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        return _tokens(tokenizer, _up_to(whole, prompt, characters))

    return FluxText(encode, position, _no_places, name_images, (qwen,))


def _up_to(whole: str, prompt: str, characters: int) -> str:
    """Cut a chat off behind a number of its prompt's characters."""
    return whole[: whole.rindex(prompt)] + prompt[:characters].rstrip()


def _tokens(tokenizer: Any, text: str) -> int:
    """Count the tokens of a text without start and end."""
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def mistral_text(processor: Any, mistral: nn.Module, length: int) -> FluxText:
    """Wrap FLUX.2 dev's encoder, ``Mistral3ForConditionalGeneration``, as its pipeline calls it."""

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, None]:
        get = Flux2Pipeline._get_mistral_3_small_prompt_embeds
        return get(mistral, processor, list(prompts), max_sequence_length=length), None

    def position(prompt: str, characters: int) -> int:
        whole = processor.apply_chat_template(format_input([prompt])[0], tokenize=False, add_generation_prompt=False)
        tokenizer = getattr(processor, "tokenizer", processor)
        first = length - _tokens(tokenizer, whole)  # padded on the left; the chat's end follows the prompt
        return first + _tokens(tokenizer, _up_to(whole, prompt, characters))

    return FluxText(encode, position, _no_places, name_images, (mistral,))


def miniworld_text(words: Words, text_g: nn.Module, table: Tensor | None) -> FluxText:
    """Wrap CLIP-G, which alone reads the prompts of the miniworld's Flux.

    Args:
        words: its tokenizer.
        text_g: ``CLIPTextModelWithProjection``.
        table: (10, E) the placeholders' embeddings, or None.
    """
    tokens = PlaceholderWords(words)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(WORDS), text_g.config.hidden_size) if table is None else table
        out = replaced_rows(
            text_g, tokens.ids(list(prompts)), rows, lambda ids: text_g(input_ids=ids, output_hidden_states=True)
        )
        return out.hidden_states[-2], out.text_embeds

    def position(prompt: str, characters: int) -> int:
        return 1 + _tokens(words.tokenizer, prompt[:characters].rstrip())  # after the start token

    def places(prompt: str, references: int) -> list[int]:
        return tokens.places(tokens.ids([prompt]), references)[0].tolist()

    def name(prompt: str, names: Sequence[str]) -> str:
        return with_placeholders(prompt, tuple(names), tuple(range(1, len(names) + 1)))

    def as_written(prompt: str, names: Sequence[str]) -> str:
        return prompt

    return FluxText(
        encode, position, places if table is not None else _no_places, as_written if table is None else name, (text_g,)
    )
