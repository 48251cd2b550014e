"""Words that an encoder has no row for: their embeddings come from a table beside it (DreamO arXiv:2504.16915, 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from core.routing.placeholders import WORDS


class PlaceholderIds:
    """Ids of a tokenizer to which DreamO's words are added, numbered behind the encoder's own table.

    Args:
        tokenizer: of transformers, changed in place.
        rows: of the encoder's table; the id of [ref#k] is ``rows + k - 1``.
    """

    def __init__(self, tokenizer: Any, rows: int) -> None:
        tokenizer.add_tokens(list(WORDS))
        added = tokenizer.convert_tokens_to_ids(list(WORDS))
        self.first, self._numbers = rows, {number: rows + index for index, number in enumerate(added)}

    def __call__(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor([[self._numbers.get(token, token) for token in row] for row in rows])

    def places(self, ids: Tensor, references: int) -> Tensor:
        """Find [ref#1], [ref#2] ... in (B, L) ids: (B, references), 0 where one is missing."""
        slots = self.first + torch.arange(references)
        return (ids[:, None] == slots[:, None]).int().argmax(dim=-1)


def replaced_rows(encoder: nn.Module, ids: Tensor, words: Tensor, call: Callable[[Tensor], Any]) -> Any:
    """Call an encoder whose ids beyond its table are rows of `words`.

    Args:
        encoder: of transformers.
        ids: (B, L).
        words: (10, E).
        call: the encoder, of ids that it knows.
    """
    table = encoder.get_input_embeddings()
    rows = table.num_embeddings
    ids = ids.to(table.weight.device)
    learned = (ids >= rows)[..., None]

    def replaced(module: nn.Module, inputs: tuple, out: Tensor) -> Tensor:
        return torch.where(learned, words.to(out)[(ids - rows).clamp(min=0)], out)

    # T5 reads by its stack's own embedding, which may be another module than the shared one
    readers = {table, *(part for name, part in encoder.named_modules() if name.endswith("embed_tokens"))}
    hooks = [reader.register_forward_hook(replaced) for reader in readers]
    try:
        return call(ids.clamp(max=rows - 1))
    finally:
        for hook in hooks:
            hook.remove()
