"""A clone of a CLIP that writes the positions of its prompt's words and pictures into every CONDITIONING.

A CONDITIONING holds no tokens: templates are cut off and pictures take as many positions as they have patches. While
the clone encodes, a forward pre-hook on the language model reads where ComfyUI put the pictures; it is removed whatever
happens. Because the clone is a CLIP of the same class, it serves every node that takes one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....core.prompt.text_positions import TextPositions, token_characters

log = logging.getLogger(__name__)

TEXT_KEY = "relate_text"  # of the TextPositions in a conditioning entry
_END_OF_TURN = 151645  # <|im_end|> in Qwen's vocabulary


@dataclass(frozen=True)
class ContextEncoder:
    """The part of a CLIP whose tokens become the positions of the CONDITIONING.

    Attributes:
        transformer: its language model.
        tokenizer: its tokenizer, with ``decode``.
        rows: its tokens, a list of (token, ...) for each chunk.
        cuts_end: its CLIP also cuts off what follows the prompt, as LongCat's does.
    """

    transformer: Any
    tokenizer: Any
    rows: list[list[tuple]]
    cuts_end: bool


def context_encoder(clip, tokens: dict) -> ContextEncoder | None:
    """Find the encoder that makes the context; None where several share it (SD3) or none can decode."""
    model, tokenizer = clip.cond_stage_model, clip.tokenizer
    part = getattr(model, "clip", None)
    key = getattr(model, "clip_name", None)  # a tokenizer may serve more encoders than this model has
    if key not in tokens:
        key = next(iter(tokens)) if len(tokens) == 1 else None
    if part is None:  # two encoders: T5 makes the context of Flux, CLIP-L half of each of SDXL's positions
        part, key = next(
            (
                (part, key)
                for part, key, other in (("t5xxl", "t5xxl", "clip_g"), ("clip_l", "l", "t5xxl"))
                if hasattr(model, part) and not hasattr(model, other) and key in tokens
            ),
            (None, None),
        )
    encoder = getattr(model, part, None) if part else None
    inner = getattr(getattr(tokenizer, part, None), "tokenizer", None) if part else None
    if key is None or encoder is None or not hasattr(encoder, "transformer") or not hasattr(inner, "decode"):
        return None
    cuts_end = any(kind.__name__ == "LongCatImageTokenizer" for kind in type(tokenizer).__mro__)
    return ContextEncoder(encoder.transformer, inner, tokens[key], cuts_end)


def with_text_positions(clip):
    """Clone a CLIP so that its CONDITIONING carries a ``TextPositions`` under TEXT_KEY."""
    clone = clip.clone()
    if isinstance(clone, _RecordsText):
        return clone
    return copy_as(type("RecordingCLIP", (_RecordsText, type(clone)), {}), clone)


def text_positions(conditioning: list) -> list[TextPositions]:
    """Collect the positions that a CONDITIONING's entries carry; entries of another CLIP have none."""
    return [entry[TEXT_KEY] for _, entry in conditioning if TEXT_KEY in entry]


_CLIP: Any = object  # the class of the CLIP that is cloned, known when it is


class _RecordsText(_CLIP):
    """Mixin that puts positions into the CONDITIONING; its clones do so too."""

    def clone(self, *args, **kwargs):
        return copy_as(type(self), super().clone(*args, **kwargs))

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict=None, show_pbar=True):
        # read the language model's inputs while ComfyUI encodes
        encoder = context_encoder(self, tokens)
        inputs: dict[str, Any] = {}
        handle = (
            None
            if encoder is None
            else encoder.transformer.register_forward_pre_hook(
                lambda _module, _args, kwargs: inputs.update(kwargs), with_kwargs=True
            )
        )
        try:
            conditioning = super().encode_from_tokens_scheduled(
                tokens, unprojected=unprojected, add_dict=add_dict or {}, show_pbar=show_pbar
            )
        finally:
            if handle is not None:
                handle.remove()

        # write them down as positions
        if encoder is None or inputs.get("embeds") is None:
            log.debug("Relate: %s does not say where its words stand.", type(self.tokenizer).__name__)
            return conditioning
        return [
            [context, {**entry, TEXT_KEY: _positions(encoder, inputs, context.shape[1])}]
            for context, entry in conditioning
        ]


def copy_as(kind: type, clip):
    """Copy a CLIP as an object of another class, its attributes shared."""
    copy = object.__new__(kind)
    copy.__dict__.update(clip.__dict__)
    return copy


def _positions(encoder: ContextEncoder, inputs: dict, length: int) -> TextPositions:
    """Compute the positions in a CONDITIONING of ``length`` from the inputs of the language model."""
    # where every token and picture stands in the sequence, and how much of it was cut off
    rows = encoder.rows
    # chunks of 75 words follow each other; only one-chunk encoders read pictures
    embedded = inputs.get("embeds_info") or [] if len(rows) == 1 else None
    total = inputs["embeds"].shape[1] * len(rows)
    ids = [token for row in rows for token, *_ in row]
    cut = total - length - (_end_length(ids) if encoder.cuts_end else 0)
    places = _places(ids, embedded)

    # the words' characters, without padding
    written = [index for index, token in enumerate(ids) if _is_id(token)]
    written = written[: len(written) - _padding([ids[index] for index in written])]
    text, spans = token_characters([int(ids[index]) for index in written], encoder.tokenizer.decode)
    tokens = tuple((*span, places[index] - cut) for index, span in zip(written, spans))
    images = tuple(
        (info["index"] - cut, info["index"] - cut + info["size"])
        for info in sorted(embedded or [], key=lambda info: info["index"])
        if info["type"] == "image"
    )
    return TextPositions(text, tokens, images, length)


def _places(ids: Sequence, embedded: list[dict] | None) -> list[int]:
    """Place each token in the language model's sequence, where a picture takes as many places as it has patches."""
    sizes = None if embedded is None else {info["index"]: info["size"] for info in embedded}
    places, place = [], 0
    for token in ids:
        places.append(place)
        # a picture or embedding that ComfyUI could not use takes no place
        place += 1 if _is_id(token) or sizes is None else sizes.get(place, 0)
    return places


def _is_id(token) -> bool:
    return not isinstance(token, dict) and not hasattr(token, "shape")


def _padding(ids: Sequence[int]) -> int:
    """Count the equal tokens that end a text, but for one: padding is slow to decode."""
    count = 0
    while count + 1 < len(ids) and ids[-1 - count] == ids[-2 - count]:
        count += 1
    return count


def _end_length(ids: Sequence) -> int:
    """Count the tokens from the last <|im_end|> on."""
    return next(
        (
            len(ids) - index
            for index in range(len(ids) - 1, -1, -1)
            if _is_id(ids[index]) and ids[index] == _END_OF_TURN
        ),
        0,
    )
