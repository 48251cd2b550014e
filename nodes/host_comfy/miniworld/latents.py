"""The miniworld's own latents: channels and scale, preview colours while a sampler runs, the sizes its models draw."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import comfy.latent_formats
import torch
from comfy.patcher_extension import WrappersMP
from einops import rearrange
from torch.nn import functional as F

from ...drawing.layout import read_picture
from .. import folders

log = logging.getLogger(__name__)

SIDE = 16  # cells along each side of the latents that the models were trained on
FACTOR = 8  # pixels along each side of a cell
SMALLEST, LARGEST = 12, 24  # cells along a side that still come out well
_FITTED_ON = 4  # pictures


def format_of(folder: Path) -> comfy.latent_formats.LatentFormat:
    """Build the latent format of a miniworld's autoencoder from its config.

    Latents of SDXL's channels and scale are SDXL's. Any others are a format of their own and not Flux's: what is drawn
    in Flux's format has Flux's scale, shift and preview colours, none of which these latents have. Empty latents of any
    number of channels fit either: ComfyUI repeats them.
    """
    config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    channels, scale = config["latent_channels"], config["scaling_factor"]
    sdxl = comfy.latent_formats.SDXL()
    if (channels, scale) == (sdxl.latent_channels, sdxl.scale_factor):
        return sdxl
    own = comfy.latent_formats.LatentFormat()
    own.latent_channels, own.scale_factor = channels, scale
    return own


def finish_model(model, vae) -> None:
    """Give a freshly loaded model of the miniworld its VAE's preview colours, and a warning of sizes far from its own.

    Args:
        model: ModelPatcher that nobody else holds yet, with the format of `format_of`.
        vae: the miniworld's.
    """
    latents = model.model.latent_format
    colours = preview_colours(vae, latents)
    latents.latent_rgb_factors = colours[:-1].tolist()
    latents.latent_rgb_factors_bias = colours[-1].tolist()
    latents.taesd_decoder_name = None  # SDXL's would show other colours
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "relate_miniworld_size", _check_size)


def preview_colours(vae, latents: comfy.latent_formats.LatentFormat) -> torch.Tensor:
    """Fit pictures, a pixel for each cell, to their latents by least squares.

    Args:
        vae: the miniworld's.
        latents: its format.

    Returns:
        (channels + 1, 3): a colour in [-1, 1] for each channel of a latent as the sampler sees it, and the bias.
    """
    cells, colours = [], []
    for name in folders.creatures()[:_FITTED_ON]:
        pixels = read_picture(folders.creature_path(name))  # (1, H, W, 3)
        latent = latents.process_in(vae.encode(pixels))
        small = F.interpolate(rearrange(pixels, "b h w c -> b c h w"), size=latent.shape[-2:], mode="area")
        cells.append(rearrange(latent, "b c h w -> (b h w) c"))
        colours.append(rearrange(small, "b c h w -> (b h w) c") * 2 - 1)
    rows = torch.cat(cells).cpu()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)  # the last column gives the bias
    return torch.linalg.lstsq(rows, torch.cat(colours)).solution


def _check_size(executor, *args, **kwargs):
    noise = args[0] if args else kwargs["noise"]
    height, width = noise.shape[-2:]
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        log.warning(
            "Relate: the miniworld's models draw %d x %d pictures; %d x %d was asked for and will not come out "
            "well. Set Empty Latent Image to %d x %d and enlarge the picture afterwards.",
            SIDE * FACTOR,
            SIDE * FACTOR,
            width * FACTOR,
            height * FACTOR,
            SIDE * FACTOR,
            SIDE * FACTOR,
        )
    return executor(*args, **kwargs)
