"""Pictures to latents and back, and photographs to CLIP's tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def latent_factor(vae: nn.Module) -> int:
    """Compute the side of one latent in pixels: 8 on SDXL."""
    return fold_of(vae) * 2 ** (len(vae.config.block_out_channels) - 1)


def fold_of(vae: nn.Module) -> int:
    """Compute the side of the pixel blocks that are folded into channels before the VAE; 1 for any that reads RGB."""
    return round((vae.config.in_channels / 3) ** 0.5)


@torch.no_grad()
def encode_pictures(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Return the mode of the posterior, scaled as the UNet expects it, one picture at a time.

    Args:
        vae: an ``AutoencoderKL``, or Flux.2's, whose latents are 2 x 2 patches with their own statistics.
        pixels: (N, 3, H, W) in [0, 1].

    Returns:
        (N, C, H/f, W/f) float32 on the CPU.
    """
    latents = []
    for picture in pixels:
        folded = F.pixel_unshuffle(picture[None].to(vae.device, vae.dtype) * 2 - 1, fold_of(vae))
        mode = vae.encode(folded).latent_dist.mode().float()
        if hasattr(vae, "bn"):
            latents.append(((pixel_patches(mode) - _mean_of(vae)) / _deviation_of(vae)).cpu())
        else:
            latents.append(((mode - (vae.config.shift_factor or 0)) * vae.config.scaling_factor).cpu())
    return torch.cat(latents)


@torch.no_grad()
def decode_latents(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode (N, C, h, w) latents to (N, 3, H, W) in [0, 1] on the CPU, one picture at a time."""
    pictures = []
    for latent in latents:
        if hasattr(vae, "bn"):
            unscaled = latent_cells(latent[None].float().to(vae.device) * _deviation_of(vae) + _mean_of(vae))
        else:
            unscaled = latent[None].float() / vae.config.scaling_factor + (vae.config.shift_factor or 0)
        picture = F.pixel_shuffle(vae.decode(unscaled.to(vae.device, vae.dtype)).sample, fold_of(vae))
        pictures.append((picture.float() / 2 + 0.5).clamp(0, 1).cpu())
    return torch.cat(pictures)


def pixel_patches(cells: Tensor) -> Tensor:
    """Put 2 x 2 cells into one: (B, C, h, w) to (B, 4 C, h/2, w/2), as Flux.2's latents."""
    return F.pixel_unshuffle(cells, 2)


def latent_cells(patches: Tensor) -> Tensor:
    """Undo `pixel_patches`: (B, 4 C, h, w) to (B, C, 2 h, 2 w)."""
    return F.pixel_shuffle(patches, 2)


def _mean_of(vae: nn.Module) -> Tensor:
    return vae.bn.running_mean.view(1, -1, 1, 1).float()


def _deviation_of(vae: nn.Module) -> Tensor:
    return (vae.bn.running_var.view(1, -1, 1, 1).float() + vae.config.batch_norm_eps).sqrt()


@torch.no_grad()
def image_tokens(vision: nn.Module, pixels: Tensor) -> Tensor:
    """Return CLIP's penultimate layer with its class token: (V, 257, 1664) for bigG at 224 pixels.

    Args:
        vision: a ``CLIPVisionModelWithProjection``.
        pixels: (V, 3, s, s) normalised, s the encoder's size.
    """
    return vision(pixels.to(vision.device, vision.dtype), output_hidden_states=True).hidden_states[-2]


@torch.no_grad()
def patches_and_embedding(vision: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Encode references for Subject-Diffusion: (V, T, I) patch tokens of the last block, (V, E) embeddings.

    Args:
        vision: a ``CLIPVisionModelWithProjection``.
        pixels: (V, 3, s, s) normalised, s the encoder's size.

    Returns:
        The tokens before the final norm, without the class token; the projected class token, not normalised.
    """
    out = vision(pixels.to(vision.device, vision.dtype))
    return out.last_hidden_state[:, 1:].float().cpu(), out.image_embeds.float().cpu()
