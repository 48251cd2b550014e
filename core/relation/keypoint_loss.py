"""The keypoint matching loss (DreamRelation arXiv:2410.23280, section 4.2): a joint looks like itself in another pose.

    L = 1 / n * sum over matched keypoints || z0(p_target) - z_concept(p_concept) ||^2      (sum over the channels)

z0 is the prediction of the clean latents, z_concept the latents of the subject's own photograph. Where we differ from
the released code: concept keypoints are read where they are (the code reads the top left 4 x 4 corner, because it takes
the channel count for the width; ``concept_grid=(4, 4)`` reproduces that), keypoints that are not visible do not count,
and every picture of a batch has its own value and its own gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..shapes import check_shape


@dataclass(frozen=True, eq=False)
class KeypointPairs:
    """Matching joints of the same subjects in two pictures.

    Attributes:
        target: (B, S, P, 2) x, y in fractions of the target picture.
        concept: (B, S, P, 2) x, y in fractions of the subject's own photograph.
        visible: (B, S, P) bool; False leaves the pair out.
    """

    target: Tensor
    concept: Tensor
    visible: Tensor

    def __post_init__(self) -> None:
        sizes = check_shape(self.target, "B S P 2", "target keypoints")
        check_shape(self.concept, "B S P 2", "concept keypoints", **sizes)
        check_shape(self.visible, "B S P", "keypoint visibility", **sizes)


def sample_at(latents: Tensor, points: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Return the latent cell under each point.

    Args:
        latents: (..., C, H, W).
        points: (..., P, 2) x, y in [0, 1]; 1.0 is in the last cell.
        grid: (rows, columns) the fractions are counted on; default (H, W).

    Returns:
        (..., P, C).
    """
    height, width = latents.shape[-2:]
    rows, columns = grid or (height, width)
    column = (points[..., 0] * columns).floor().long().clamp(0, width - 1)
    row = (points[..., 1] * rows).floor().long().clamp(0, height - 1)
    cells = rearrange(latents, "... c h w -> ... (h w) c")
    index = (row * width + column)[..., None].expand(*points.shape[:-1], cells.shape[-1])
    return cells.gather(-2, index)


def keypoint_distances(
    clean: Tensor, concepts: Tensor, pairs: KeypointPairs, concept_grid: tuple[int, int] | None = None
) -> Tensor:
    """Measure the squared distance of every pair of joints, summed over the channels.

    Args:
        clean: (B, C, H, W) predicted clean latents of the target.
        concepts: (B, S, C, h, w) latents of the subjects' photographs; constants.
        pairs: the joints.
        concept_grid: None, or the (rows, columns) that concept keypoints are counted on.

    Returns:
        (B, S, P) float32, also where not visible.
    """
    sizes = check_shape(clean, "B C H W", "predicted latents", B=pairs.target.shape[0])
    check_shape(concepts, "B S C h w", "concept latents", B=sizes["B"], C=sizes["C"], S=pairs.target.shape[1])
    subjects = concepts.shape[1]
    target_cells = sample_at(clean.float()[:, None].expand(-1, subjects, -1, -1, -1), pairs.target)
    concept_cells = sample_at(concepts.float(), pairs.concept, concept_grid)
    return (target_cells - concept_cells).square().sum(dim=-1)


def keypoint_loss(clean: Tensor, concepts: Tensor, pairs: KeypointPairs, gate: Tensor) -> Tensor:
    """Compute the paper's form: the mean over a picture's visible keypoints.

    Args:
        clean, concepts, pairs: as for ``keypoint_distances``.
        gate: (B,) bool; False where the noise is too strong for z0 to mean anything. At timestep 999 of SDXL its
            error is amplified 214 times, at 333 0.87 times.

    Returns:
        (B,) float32; 0 for a gated picture and for one without a visible keypoint.
    """
    check_shape(gate, "B", "noise gate", B=clean.shape[0])
    distances = keypoint_distances(clean, concepts, pairs)
    counted = pairs.visible & gate[:, None, None]
    total = torch.where(counted, distances, torch.zeros_like(distances)).sum(dim=(1, 2))
    return total / counted.sum(dim=(1, 2)).clamp(min=1)


def keypoint_loss_as_released(clean: Tensor, concepts: Tensor, pairs: KeypointPairs, gate: Tensor) -> Tensor:
    """Compute the released code's form with its error: concept keypoints in the corner, mean over channels as well.

    Every keypoint counts there, visible or not. Arguments and result as for ``keypoint_loss``.
    """
    channels = clean.shape[1]
    distances = keypoint_distances(clean, concepts, pairs, concept_grid=(channels, channels)) / channels
    return torch.where(gate, distances.mean(dim=(1, 2)), torch.zeros_like(distances[:, 0, 0]))
