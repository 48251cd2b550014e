"""CLIPSelf (arXiv:2310.01403): dense features of a CLIP that agree with the CLIP's own crops.

The student reads a picture at several times CLIP's size without attention in its last block; each cell of a random grid
must then say what the teacher says of that cell's crop: loss 1 - cos. Only the last blocks learn. Where we differ from
the reference: the trunk that teacher and student share is kept once, the q and k of the last block (unused) do not
decay, the rate stays constant and the result is a moving average, and teacher crops are cut from the picture at the
size the student sees.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.identity.image_prep import normalise_pixels
from core.identity.local_tokens import dense_features

from ..host_diffusers.clipself import VisionEncoder, dense_projected, letterbox
from .timed_loop import State, TrainerConfig, fit, load_ema_weights

GRIDS = tuple((m, n) for m in range(1, 7) for n in range((m + 1) // 2, min(2 * m, 6) + 1))  # the reference's 24
MOST_REGIONS = 20

Pictures = Callable[[np.random.Generator, int], Tensor]


@dataclass(frozen=True)
class Distillation:
    """What to distil.

    Attributes:
        scale: the student's picture size over CLIP's own; 4 is 896 for 224.
        unlocked: how many of the last blocks learn; 6 of 48 in DreamRelation.
        teacher_share: of the teacher's weights in the result; 0.05 for large towers in the reference (1 - 0.95).
    """

    scale: int = 4
    unlocked: int = 6
    teacher_share: float = 0.05


def distil(
    encoder: VisionEncoder,
    rebuild: Callable[[nn.Module], VisionEncoder],
    pictures: Pictures,
    plan: Distillation,
    settings: TrainerConfig,
    folder: Path,
    device: torch.device,
    minutes: float,
    until: int | None = None,
) -> tuple[VisionEncoder, State]:
    """Train a copy of an encoder towards dense features that agree with the encoder's crops.

    Args:
        encoder: the teacher; untouched.
        rebuild: takes the copied module apart again.
        pictures: (generator, count) to (count, 3, H, W) in [0, 1].
        plan, settings: see there.
        folder: of checkpoints.
        device: where to run; `minutes` bounds the call.
        until: stop at this step of the settings' schedule; at its end by default.
    Returns:
        The student (on the CPU, averaged with the teacher's share) and the final state.
    """
    # 1. teacher and student; only the student's last blocks learn
    teacher = rebuild(encoder.module.to(device).eval().requires_grad_(False))
    student = rebuild(copy.deepcopy(teacher.module))
    for block in student.blocks[len(student.blocks) - plan.unlocked :]:
        block.requires_grad_(True)
    side = plan.scale * teacher.image_size

    def loss(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        batch = pictures(rng, settings.batch_size).to(device)
        large = F.interpolate(batch, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        dense = dense_projected(student, dense_features(student.tower, normalise_pixels(large)))
        regions = [grid_boxes(rng) for _ in range(len(batch))]
        crops = torch.stack(
            [letterbox(_cut(image, box), teacher.image_size) for image, boxes in zip(large, regions) for box in boxes]
        )
        with torch.no_grad():
            teacher_vectors = F.normalize(teacher.embed(normalise_pixels(crops)).float(), dim=-1)
        student_vectors = torch.cat([region_vectors(image, boxes) for image, boxes in zip(dense, regions)])
        cosine = (F.normalize(student_vectors.float(), dim=-1) * teacher_vectors).sum(-1).mean()
        return {"loss": 1 - cosine, "cosine": cosine}

    # 2. train, then average with the teacher's share
    state = fit(settings, student.module, loss, folder, device, minutes, until)
    weights, _ = load_ema_weights(folder)
    result = copy.deepcopy(encoder.module).cpu()
    original = result.state_dict()
    result.load_state_dict(
        {
            name: value
            if name not in weights
            else torch.lerp(weights[name], original[name].float(), plan.teacher_share)
            for name, value in original.items()
        }
    )
    return rebuild(result.eval().requires_grad_(False)), state


def grid_boxes(rng: np.random.Generator) -> np.ndarray:
    """Return the cells of a random grid, at most MOST_REGIONS of them: (K, 4) x0 y0 x1 y1 fractions, row by row."""
    rows, columns = GRIDS[int(rng.integers(len(GRIDS)))]
    y, x = (axis.ravel() for axis in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    boxes = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], axis=1)
    if len(boxes) > MOST_REGIONS:
        boxes = boxes[np.sort(rng.choice(len(boxes), MOST_REGIONS, replace=False))]
    return boxes


def _cut(picture: Tensor, box: np.ndarray) -> Tensor:
    height, width = picture.shape[-2:]
    x0, y0, x1, y1 = (round(float(edge) * size) for edge, size in zip(box, (width, height, width, height)))
    return picture[:, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def region_vectors(dense: Tensor, boxes: np.ndarray) -> Tensor:
    """Average dense features over boxes by area, exact for cells cut by a box's edge.

    Args:
        dense: (E, h, w).
        boxes: (K, 4) fractions.
    Returns:
        (K, E).
    """

    def overlap(low: np.ndarray, high: np.ndarray, cells: int) -> Tensor:
        starts = np.arange(cells)
        share = np.minimum(high[:, None] * cells, starts + 1) - np.maximum(low[:, None] * cells, starts)
        return torch.from_numpy(np.clip(share, 0, None)).to(dense)

    across, down = overlap(boxes[:, 0], boxes[:, 2], dense.shape[2]), overlap(boxes[:, 1], boxes[:, 3], dense.shape[1])
    weights = torch.einsum("kh,kw->khw", down, across)
    return torch.einsum("khw,chw->kc", weights / weights.sum(dim=(1, 2), keepdim=True), dense)
