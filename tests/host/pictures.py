"""Photographs for the tests, drawn from formulas."""

from __future__ import annotations

import io

import numpy
import torch
from PIL import Image


def photograph(height: int, width: int, seed: int = 0, channels: int = 3, batch: int = 1) -> torch.Tensor:
    """IMAGE (B, H, W, C) in [0, 1]: a coloured disc on a gradient, not two equal."""
    rows = torch.linspace(0, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 1, width)[None, :].expand(height, width)
    disc = ((rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.1).float()
    colour = torch.rand(batch, channels, 1, 1, generator=torch.Generator().manual_seed(seed))
    ground = torch.stack([rows, columns, 1 - rows, torch.ones_like(rows)][:channels])
    return (ground * (1 - disc) + colour * disc).permute(0, 2, 3, 1).contiguous()


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((image[0].numpy() * 255).round().astype(numpy.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
