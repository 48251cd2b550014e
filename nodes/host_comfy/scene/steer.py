"""Where Apply Scene asks for its references to be kept in their boxes: the one call to the steering of references."""

from __future__ import annotations

import logging

from torch import Tensor

log = logging.getLogger(__name__)


def attach_regions(
    model,
    positive: list,
    negative: list,
    regions: list[Tensor | None],
    weights: list[float],
    names: list[str],
    strength: float,
    window: tuple[float, float],
) -> tuple:
    """MODEL, positive and negative whose reference latents act inside their regions.

    Args:
        regions: for each reference latent (h, w) in [0, 1] over the output, or None for everywhere.
        weights: for each, a factor on the attention it gets.
        names: for each, its subject's name; its places in the prompt are kept in the region too.
        strength: in nats; 0 keeps none in its region.
        window: fractions of the schedule.
    """
    log.warning("Relate: references are not kept in their boxes in this version.")
    return model, positive, negative
