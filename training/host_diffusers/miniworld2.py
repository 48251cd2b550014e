"""The second miniworld's architectures: the first one's, with any number of latent channels.

Every network is a stock class of diffusers or transformers, built from numbers that its saved config repeats, so that
ComfyUI builds the same. Only the autoencoder, the UNet and the small Flux depend on the latent channels.
"""

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from . import miniworld as first


def autoencoder_config(channels: int) -> dict:
    """A stock KL autoencoder behind space-to-depth by 4, factor 8 overall; its scale is measured after training."""
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
