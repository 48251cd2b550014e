"""Random generators seeded with words, so that a draw depends on what it is for and on nothing before it."""

from __future__ import annotations

from hashlib import sha256

import torch


def seeded_generator(words: str) -> torch.Generator:
    """Make a generator on the CPU, seeded with the first 7 bytes of the words' SHA-256."""
    return torch.Generator().manual_seed(int.from_bytes(sha256(words.encode()).digest()[:7], "big"))
