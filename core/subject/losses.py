"""Attention map control in training: a subject's words shall look at the subject (arXiv:2307.11410, section 4.4).

The released code takes FastComposer's balanced form (arXiv:2305.10431, equation 4), the paper writes L1:

    balanced = mean_k ( sum A_k (1 - S_k) / sum (1 - S_k)  -  sum A_k S_k / sum S_k ),   l1 = mean_k mean |A_k - S_k|

with A_k the cross-attention of word k, S_k the segmentation of its subject at the layer's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from ..shapes import check_shape

BALANCED, L1 = "balanced", "l1"
FORMS = (BALANCED, L1)
_EPSILON = 1e-5  # as published: an empty segmentation, or no word, divides by this


def localisation_loss(
    maps: Sequence[Tensor],
    segmentations: Tensor,
    positions: Tensor,
    present: Tensor,
    form: str = BALANCED,
    peak_one: bool = False,
) -> Tensor:
    """Compare the words' attention with their subjects' segmentations, mean over layers.

    Args:
        maps: for each layer (B, heads, h * w, T) attention probabilities over the T words; square grids unless
            the segmentations' aspect ratio says otherwise.
        segmentations: (B, K, H, W) in [0, 1]; one for each word.
        positions: (B, K) int, where each word stands in the context; any value where it is absent.
        present: (B, K) bool.
        form: one of FORMS.
        peak_one: divide each word's map by its maximum over positions first, an option of the released code that its
            training leaves off.

    Returns:
        Scalar float32. A row without words counts as 0, as published.

    Raises:
        ValueError: no maps, an unknown form, or shapes that do not fit each other.
    """
    sizes = check_shape(segmentations, "B K H W", "segmentations")
    check_shape(positions, "B K", "positions of words", B=sizes["B"], K=sizes["K"])
    check_shape(present, "B K", "words present", B=sizes["B"], K=sizes["K"])
    if not maps or form not in FORMS:
        raise ValueError(
            f"localisation loss: expected maps of at least one layer and a form of {', '.join(FORMS)}, "
            f"got {len(maps)} maps and {form!r}."
        )
    return torch.stack([_layer(layer, segmentations, positions, present, form, peak_one) for layer in maps]).mean()


def _layer(
    attention: Tensor, segmentations: Tensor, positions: Tensor, present: Tensor, form: str, peak_one: bool
) -> Tensor:
    heads, cells = check_shape(attention, "B heads N T", "attention", B=len(positions))["heads"], attention.shape[2]
    height, width = grid_of(cells, *segmentations.shape[-2:])
    subject = F.interpolate(segmentations.float(), (height, width), mode="bilinear", antialias=True)
    subject = rearrange(subject, "b k h w -> b 1 k (h w)")
    index = torch.where(present.bool(), positions, 0)[:, None, None, :].expand(-1, heads, cells, -1)
    word_maps = rearrange(attention.float().gather(-1, index), "b heads n k -> b heads k n")
    if peak_one:
        word_maps = word_maps / (word_maps.amax(dim=-1, keepdim=True) + _EPSILON)
    if form == L1:
        error = (word_maps - subject).abs().mean(dim=-1)
    else:
        error = _mean(word_maps, 1 - subject) - _mean(word_maps, subject)  # (B, heads, K)
    weight = present.float()[:, None, :]
    return ((error * weight).sum(dim=-1) / (weight.sum(dim=-1) + _EPSILON)).mean()


def _mean(maps: Tensor, mask: Tensor) -> Tensor:
    return (maps * mask).sum(dim=-1) / (mask.sum(dim=-1) + _EPSILON)


def grid_of(cells: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a grid of so many cells in the aspect ratio of a picture.

    Raises:
        ValueError: no such grid.
    """
    rows = round((cells * height / width) ** 0.5)
    if rows < 1 or cells % rows:
        raise ValueError(f"attention: {cells} positions are no grid in the shape {height} x {width} of the picture.")
    return rows, cells // rows
