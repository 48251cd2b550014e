"""A miniworld of random weights on disk, for tests of its format; imports what training needs."""

from pathlib import Path

import torch

from training.host_diffusers.clipself import encoder_of_transformers
from training.host_diffusers.miniworld import architectures as sizes
from training.host_diffusers.miniworld.bundle import Miniworld, save_miniworld


def save_random_miniworld(folder: Path) -> Path:
    """Write every model, seed 0, as the export lays them out, beside the shipped tokenizer; returns the folder."""
    torch.manual_seed(0)
    (folder / "tokenizer").symlink_to(sizes.FOLDER / "tokenizer")
    words = sizes.Words(folder / "tokenizer")
    world = Miniworld(
        sizes.build_autoencoder(),
        sizes.build_text_l(len(words)),
        sizes.build_text_g(len(words)),
        sizes.build_vision(),
        encoder_of_transformers(sizes.build_vision()),
        sizes.build_unet(),
        sizes.build_identity(),
        words,
    )
    save_miniworld(world, folder)
    return folder
