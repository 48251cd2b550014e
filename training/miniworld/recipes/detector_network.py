"""The miniworld's detector of creatures: a small CenterNet (arXiv:1904.07850).

A picture of 128 x 128 becomes a map of 32 x 32 cells: for each species how much a cell is the middle of such a
creature, and for each cell the width, height and exact middle of the creature there. In its few minutes of training it
learns where creatures are far better than which they are, so the species comes from the identity classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..world.traits import SPECIES

FILE = "detector.safetensors"
SIDE, CELLS = 128, 32
_MOST = 12  # candidates of a picture
_PRIOR = -2.19  # bias of the maps: a cell is a middle with a chance of .1


def _block(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width_out, 3, stride, 1), nn.GroupNorm(8, width_out), nn.SiLU())


class CreatureDetector(nn.Module):
    """(B, 3, 128, 128) in [0, 1] to logits (B, 8, 32, 32) of species' middles and (B, 4, 32, 32) sizes and offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.PixelUnshuffle(4), _block(48, 48), _block(48, 48))
        self.coarse = nn.Sequential(_block(48, 80, 2), _block(80, 80), _block(80, 128, 2), _block(128, 128))
        self.narrow = nn.Conv2d(128, 48, 1)
        self.join = _block(96, 64)
        self.middles = nn.Conv2d(64, len(SPECIES), 1)
        self.frames = nn.Conv2d(64, 4, 1)
        nn.init.constant_(self.middles.bias, _PRIOR)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(images * 2 - 1)
        coarse = F.interpolate(self.narrow(self.coarse(fine)), size=fine.shape[-2:], mode="bilinear")
        joined = self.join(torch.cat((fine, coarse), dim=1))
        return self.middles(joined), self.frames(joined)


def decode(middles: Tensor, frames: Tensor) -> list[list[tuple[float, tuple[float, ...]]]]:
    """Find peaks of the maps, whatever the species: for each picture (score, box in fractions), best first.

    Args:
        middles: (B, 8, h, w) logits.
        frames: (B, 4, h, w): width, height as fractions; offset of the middle in cells.
    """
    heat = middles.sigmoid().amax(1)
    heat = heat * (F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0] == heat)
    cells = heat.shape[-1]
    candidates = []
    for maps, sizes in zip(heat, frames):
        scores, places = maps.flatten().topk(_MOST)
        rows = []
        for score, place in zip(scores.tolist(), places.tolist()):
            y, x = divmod(place, cells)
            width, height, right, down = sizes[:, y, x].tolist()
            centre = (x + 0.5 + right) / cells, (y + 0.5 + down) / cells
            edges = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
            box = tuple(min(max(edge, 0.0), 1.0) for edge in edges)
            if box[0] < box[2] and box[1] < box[3]:
                rows.append((score, box))
        candidates.append(rows)
    return candidates
