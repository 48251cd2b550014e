"""A subject's photograph as the encoders see it: cut to the subject, squashed to a square, normalised.

As DreamRelation's inference does: squashed to 512 x 512 first (bicubic, 8-bit), then to the encoder's size.
Torch's antialiased bicubic agrees with PIL's to one 8-bit level.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import check_shape

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
FIRST_SIZE = 512
# What is not the subject is painted white, as in the subject photographs published with MS-Diffusion.
BACKGROUND = 1.0


def cut_out(photographs: Tensor, mask: Tensor | None) -> list[Tensor]:
    """Paint what is not the subject white and crop to the subject's bounding box.

    Args:
        photographs: (V, 3, H, W) in [0, 1].
        mask: (V, H, W) in [0, 1], 1 where the subject is, each with something above 0.5; None keeps everything.

    Returns:
        V pictures (3, h, w).
    """
    if mask is None:
        return list(photographs)
    check_shape(mask, "V H W", "mask", V=photographs.shape[0], H=photographs.shape[2], W=photographs.shape[3])
    pieces = []
    for photograph, alpha in zip(photographs, mask):
        rows = (alpha > 0.5).any(dim=1).nonzero()
        columns = (alpha > 0.5).any(dim=0).nonzero()
        window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        alpha = alpha[window].clamp(0, 1)
        pieces.append(photograph[(slice(None), *window)] * alpha + BACKGROUND * (1 - alpha))
    return pieces


def squash(photograph: Tensor, size: int) -> Tensor:
    """(3, h, w) in [0, 1] to (3, size, size) in [0, 1], on the 8-bit grid, not keeping the aspect ratio."""
    square = photograph[None].float().clamp(0, 1)
    for side in (FIRST_SIZE, size):
        if square.shape[-2:] != (side, side):
            square = F.interpolate(square, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        square = (square.clamp(0, 1) * 255).round() / 255
    return square[0]


def squares(photographs: Tensor, mask: Tensor | None, size: int) -> Tensor:
    """(V, 3, H, W) photographs and their masks to (V, 3, size, size) in [0, 1]."""
    return torch.stack([squash(piece, size) for piece in cut_out(photographs, mask)])


def normalise_pixels(squares: Tensor) -> Tensor:
    """(V, 3, s, s) in [0, 1] to what CLIP was trained on."""
    mean = torch.tensor(CLIP_MEAN, device=squares.device, dtype=squares.dtype).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=squares.device, dtype=squares.dtype).view(3, 1, 1)
    return (squares - mean) / std
