"""The prompt whose placeholder words become subjects (arXiv:2307.11410, section 4.2).

For each subject the released code appends ", the {label} is sks" and overwrites the input embedding of every "sks"
with a projection of the subject's image embedding, in order. Any other single-token word may serve as placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

PLACEHOLDER = "sks"


def fused_prompt(prompt: str, labels: Sequence[str], placeholder: str = PLACEHOLDER) -> str:
    """Append the template's clause for each subject.

    Args:
        prompt: the picture in words.
        labels: what each subject is called; each as in the prompt.
        placeholder: the word whose embedding is replaced.

    Returns:
        "{prompt}, the {label} is sks, the {label} is sks".

    Raises:
        ValueError: an empty label, or a prompt that already has the placeholder as a word.
    """
    faults = [f"subject {number} has no name" for number, label in enumerate(labels, start=1) if not label.strip()]
    if re.search(rf"(?<!\w){re.escape(placeholder)}(?!\w)", prompt, re.IGNORECASE):
        faults.append(f"it already has the word '{placeholder}', which stands for a subject")
    if faults:
        raise ValueError(f"prompt {prompt!r}: {'; '.join(faults)}. Write the prompt with the subjects' names only.")
    return prompt.strip() + "".join(f", the {label.strip()} is {placeholder}" for label in labels)


def placeholder_positions(tokens: Sequence[int], placeholder: int) -> list[int]:
    """Find the placeholder in a prompt's tokens, in order."""
    return [position for position, token in enumerate(tokens) if token == placeholder]


def replace_embeddings(embeddings: Tensor, tokens: Tensor, words: Sequence[Tensor], placeholder: int) -> Tensor:
    """Put the subjects' vectors where the placeholder stands, before positions are added.

    Args:
        embeddings: (B, T, D) token embeddings.
        tokens: (B, T) int.
        words: for each row (S, D), as many as the row has placeholders.
        placeholder: the token's id.

    Returns:
        (B, T, D), a copy.

    Raises:
        ValueError: another number of vectors than placeholders.
    """
    filled = embeddings.clone()
    for row, vectors in enumerate(words):
        places = (tokens[row] == placeholder).nonzero()[:, 0]
        if len(places) != len(vectors):
            raise ValueError(
                f"row {row}: expected {len(places)} subjects, one for each placeholder, got "
                f"{len(vectors)}. The prompt may have been cut off at its longest length."
            )
        filled[row, places] = torch.as_tensor(vectors).to(filled)
    return filled
