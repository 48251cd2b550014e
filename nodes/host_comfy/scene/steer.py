"""Where Apply Scene asks for its references to be kept in their boxes: the one call to the steering of references."""

from __future__ import annotations

from torch import Tensor

from ....core.routing.reference_regions import ReferenceRegions
from ..references import attach


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
        names: for each, its subject's name, or "" where another reference has it already.
        strength: in nats; 0 keeps none in its region.
        window: fractions of the schedule in which regions act; weights always do.
    """
    kept = ReferenceRegions(tuple(regions), tuple(weights), strength, window=window)
    return attach.attach_regions(model, positive, negative, kept, tuple(names))
