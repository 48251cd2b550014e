"""The second miniworld's architectures: the first one's, with any number of latent channels.

Every network is a stock class of diffusers or transformers, built from numbers that its saved config repeats, so that
ComfyUI builds the same. Only the autoencoder, the UNet and the small Flux depend on the latent channels.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from core.routing.call_layout import Grid
from core.routing.token_layout import PATCH

from .miniworld import architectures as first
from .miniworld.flux import FLUX, RoutedFlux, grid_ids


def autoencoder_config(channels: int) -> dict:
    """Return a stock KL autoencoder behind space-to-depth by 4, factor 8 overall.

    Its scale is measured after training.
    """
    return {**first.VAE, "latent_channels": channels, "scaling_factor": 1.0}


def unet_config(channels: int) -> dict:
    """SDXL's UNet in small."""
    return {**first.UNET, "in_channels": channels, "out_channels": channels}


def build_autoencoder(channels: int) -> nn.Module:
    """(B, 48, h, w) blocks of 4 x 4 pixels to `channels` latents on (h/2, w/2)."""
    return AutoencoderKL(**autoencoder_config(channels))


def build_unet(channels: int) -> nn.Module:
    """Two levels, each with cross-attention; text-and-time conditioning."""
    return UNet2DConditionModel(**unet_config(channels))


def flux_config(channels: int) -> dict:
    """Flux in small; 2 x 2 latents make a token."""
    return {**FLUX, "in_channels": channels * PATCH**2}


class IndexedFlux(RoutedFlux):
    """The small Flux with references as Flux's own later models take them: ComfyUI's reference method "index".

    Reference i has the position (i, row, column): a number of its own on the first axis, the same rows and columns as
    the picture. There are no embedding tables and no placeholders; DreamO's stay in the checkpoint, unused.
    """

    def positions(self, grid: Grid, references: tuple[Grid, ...]) -> Tensor:
        """(tokens of all references, 3) position ids."""
        rows = [grid_ids(reference) + torch.tensor([index, 0.0, 0.0]) for index, reference in enumerate(references, 1)]
        return torch.cat(rows) if rows else torch.zeros(0, 3)

    def embedded(self, grid: Grid, references: tuple[Grid, ...]) -> None:
        """Nothing is added to any token."""
