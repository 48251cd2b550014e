"""Words that an encoder has no row for: their embeddings come from a table beside it (DreamO arXiv:2504.16915, 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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
