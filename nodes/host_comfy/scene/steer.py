"""Keep Apply Scene's references in their boxes: its one call to the steering of references."""

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
    """Keep the reference latents of both sides inside their regions, on clones.

    Args:
        regions: for each reference latent (h, w) in [0, 1] over the output, or None for everywhere.
        weights: for each, a factor on the attention it gets.
        names: for each, its subject's name, or "" where another reference has it already.
        strength: in nats; 0 keeps none in its region.
        window: fractions of the schedule in which regions act; weights always do.
    """
    reference_regions = ReferenceRegions(tuple(regions), tuple(weights), strength, window=window)
    return attach.attach_regions(model, positive, negative, reference_regions, tuple(names))
