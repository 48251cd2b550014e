"""What of a run's loss its base has no answer to, known before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch import nn

from ..config import LossConfig
from ..diffusion.noise_schedule import NoiseSchedule
from ..host_diffusers import cross_attentions, grid_of
from ..host_diffusers.base_model import BaseModelFiles

_FACTOR = 8  # pixels of a latent's cell


def loss_faults(loss: LossConfig, base: BaseModelFiles, image_px: int) -> list[str]:
    """List what a relation's loss asks of a base that it does not have.

    Args:
        loss: its settings.
        base: not loaded yet.
        image_px: side of the target, pixels.
    """
    prediction, faults = base.schedule.prediction, []
    if loss.prediction == "flow" and prediction != "flow":
        faults.append(f"loss.prediction: the base predicts {prediction}, not flow.")
    if prediction == "flow" and loss.prediction in ("epsilon", "v"):
        faults.append(f"loss.prediction: the base predicts flow, not {loss.prediction}.")
    if zero_terminal(base.schedule) and loss.prediction == "epsilon":
        faults.append('loss.prediction: the base has zero terminal SNR, where epsilon says nothing; use "base" or "v".')
    faults += snr_faults(base.schedule, loss.min_snr_gamma)
    if loss.attention_weight:
        faults += map_faults(base.empty_unet(), image_px, loss.attention_max_cells)
    return faults


def snr_faults(schedule: NoiseSchedule, gamma: float) -> list[str]:
    """Refuse min-SNR weights on a base that predicts flow."""
    if not gamma or schedule.prediction != "flow":
        return []
    return ["loss.min_snr_gamma: min-SNR weights are for epsilon and v prediction; set it to 0."]


def map_faults(unet: nn.Module, image_px: int, most: int, blocks: Collection[str] | None = None) -> list[str]:
    """Refuse a limit below the smallest attention map: a loss on attention would have none to read.

    Args:
        unet: of SD's or SDXL's architecture; it may be on the meta device.
        image_px: side of the target, pixels.
        most: cells of the largest map that the loss reads.
        blocks: the transformer blocks that it reads, by diffusers' name; None: all.
    """
    latent = (image_px // _FACTOR,) * 2
    cells = [
        math.prod(grid_of(latent, level))
        for site, _, level in cross_attentions(unet)
        if blocks is None or site.diffusers.removesuffix(".attn2") in blocks
    ]
    if min(cells) <= most:
        return []
    return [
        f"loss.attention_max_cells: expected at least {min(cells)}, the cells of the smallest attention map at "
        f"data.image_px = {image_px}, got {most}. Raise it, or set loss.attention_weight = 0."
    ]


def zero_terminal(schedule: NoiseSchedule) -> bool:
    """Tell whether the last timestep is all noise."""
    return bool(schedule.alphas) and schedule.alphas[-1] < 1e-6
