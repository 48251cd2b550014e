"""Routing maps as pictures: perceptually even colours, alone or over the picture."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...core.routing.routing_map import RoutingMap, otsu_mask

# A path through OKLab (B. Ottosson, 2020): lightness rises evenly from dark violet to light yellow, equal steps of a
# map are equal steps to the eye, also in grey and for any colour vision.
LIGHTNESS, HUE, CHROMA = (0.18, 0.94), (285.0, 460.0), 0.16  # all inside sRGB: nothing is clipped
OVERLAY = 0.6
PREVIEW_SIDE = 256


def heat_colours(values: Tensor) -> Tensor:
    """(...) in [0, 1] to sRGB colours (..., 3) in [0, 1]."""
    values = values.clamp(0, 1)
    light = LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * values
    angle = torch.deg2rad(HUE[0] + (HUE[1] - HUE[0]) * values)
    chroma = CHROMA * torch.sin(math.pi * (0.15 + 0.75 * values))
    a, b = chroma * torch.cos(angle), chroma * torch.sin(angle)
    cones = (
        torch.stack(
            (
                light + 0.3963377774 * a + 0.2158037573 * b,
                light - 0.1055613458 * a - 0.0638541728 * b,
                light - 0.0894841775 * a - 1.2914855480 * b,
            ),
            dim=-1,
        )
        ** 3
    )
    to_rgb = torch.tensor(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    ).to(cones)
    linear = (cones @ to_rgb.T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def percentile_stretch(maps: Tensor) -> Tensor:
    """(..., h, w) of any scale to [0, 1] between its 2nd and 98th percentile."""
    flat = maps.flatten(-2).float()
    low, high = (flat.quantile(share, dim=-1)[..., None, None] for share in (0.02, 0.98))
    return ((maps - low) / (high - low).clamp_min(1e-8)).clamp(0, 1)


def heat_maps(maps: Tensor, size: tuple[int, int], image: Tensor | None = None) -> Tensor:
    """Draw maps as pictures.

    Args:
        maps: (V, h, w).
        size: (height, width) of the pictures.
        image: (V or 1, H, W, 3) in [0, 1] to lay them over, strongest where the map is high.

    Returns:
        (V, height, width, 3) in [0, 1].
    """
    values = F.interpolate(percentile_stretch(maps)[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    colours = heat_colours(values)
    if image is None:
        return colours
    below = F.interpolate(image[..., :3].movedim(-1, 1).float(), size=size, mode="bilinear", antialias=True)
    grey = below.movedim(1, -1).mean(dim=-1, keepdim=True)
    share = OVERLAY * (0.35 + 0.65 * values[..., None])
    return grey * (1 - share) + colours * share


def heat_masks(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(V, h, w) to (V, height, width): Otsu's mask of each, its edges smooth."""
    values = F.interpolate(maps[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
    return otsu_mask(values)


def thumbnail(routing_map: RoutingMap) -> Image.Image:
    """Draw the maps of the first picture in a row, for the live preview."""
    maps = routing_map.maps[0]
    rows, columns = maps.shape[-2:]
    scale = PREVIEW_SIDE / max(rows, columns)
    colours = heat_maps(maps, (round(rows * scale), round(columns * scale)))
    pixels = (rearrange(colours, "r h w c -> h (r w) c") * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.cpu().numpy())
