"""A generator depends on its words alone, and cached crops and resumed runs on its numbers."""

from __future__ import annotations

import torch

from training.common.seeds import seeded_generator


def test_a_generator_is_its_words_first_seven_bytes():
    assert seeded_generator("0/3").initial_seed() == 0xECBE93F9C7FBF3
    assert torch.equal(
        torch.rand(3, generator=seeded_generator("0/3")), torch.rand(3, generator=seeded_generator("0/3"))
    )
    assert seeded_generator("0/3").initial_seed() != seeded_generator("3/0").initial_seed()
