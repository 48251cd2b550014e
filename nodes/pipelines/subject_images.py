"""Convert IMAGE and MASK sockets to a subject's photographs: any size, batch and device, with or without alpha.

ComfyUI's nodes may leave pictures and masks on different devices (``--gpu-only``, packs that compute masks on the GPU).
A scene's tensors lie on the CPU; encoders move them to theirs.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from ..host_comfy.weak_memo import WeakMemo

# Same picture and mask, same tensors: encoders remember features by the photographs' identity.
_read = WeakMemo()


def read_photographs(image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Convert a picture socket's pictures to views of one subject.

    Args:
        image: (V, H, W, 3 or 4 or 1) in [0, 1]; an alpha channel serves as mask when none is given.
        mask: (V or 1, h, w) or (h, w), 1 where the subject is; resized to the picture.

    Returns:
        Photographs (V, 3, H, W) and masks (V, H, W) or None, on the CPU.

    Raises:
        ValueError: no picture, a number of channels that is no picture, or as many masks as fit no picture.
    """
    return _read.once((image, mask), "photographs", lambda: _convert(image, mask))


def _convert(image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"image: expected pictures (batch, height, width, 3 or 4 channels), got {tuple(image.shape)}.")
    pixels = rearrange(image, "v h w c -> v c h w").float().cpu()
    if pixels.shape[1] == 4 and mask is None:
        mask = pixels[:, 3]
    photographs = pixels[:, :3].expand(-1, 3, -1, -1).contiguous().clone()
    if mask is None:
        return photographs, None
    mask = (mask[None] if mask.ndim == 2 else mask).cpu()
    views, _, height, width = photographs.shape
    if mask.ndim != 3 or mask.shape[0] not in (1, views):
        raise ValueError(
            f"mask: expected one mask, or one for each of the {views} pictures, got shape {tuple(mask.shape)}."
        )
    if mask.shape[-2:] != (height, width):
        mask = F.interpolate(mask[:, None].float(), size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return photographs, torch.clone(mask.float().expand(views, -1, -1))


def keeps_background(mask: Tensor) -> bool:
    """Whether a mask is white along the picture's border and black in its middle, so that it keeps the background.

    Args:
        mask: (V, H, W), 1 where the subject is; the first one is looked at.
    """
    first = mask[0]
    height, width = first.shape
    border = torch.cat([first[0], first[-1], first[:, 0], first[:, -1]])
    middle = first[
        height // 3 : max(2 * height // 3, height // 3 + 1), width // 3 : max(2 * width // 3, width // 3 + 1)
    ]
    return bool(border.mean() > 0.8 and middle.mean() < 0.2)
