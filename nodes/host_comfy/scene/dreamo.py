"""A scene on Flux.1 with DreamO: references as tokens with learned rows, in their subjects' boxes.

The same as Reference Image for each subject, Apply References, and the routing of the sampler, on the MODEL itself.
"""

from __future__ import annotations

import math

from torch import Tensor

from ....core.routing.image_prep import prepare
from ....core.routing.token_layout import Reference
from ..flux import references as flux_references
from .wiring import Request, Wiring
from .wiring.common import empty_latent, encode_text, with_guidance

GUIDANCE = 4.5  # as DreamO's own app
RESOLUTION = 512  # root of a reference's area as published


def knows_placeholders(clip) -> bool:
    """Whether a CLIP reads [ref#1] as a token of its own."""
    parts = (getattr(clip.tokenizer, part, None) for part in ("t5xxl", "clip_g"))
    return any(hasattr(part, "places") for part in parts if part is not None)


def apply(
    request: Request, regions: list[Tensor | None], weights: list[float], strength: float, window: tuple[float, float]
) -> tuple:
    """Make the MODEL with the references, and the wiring.

    Args:
        regions: (h, w) for each image, where in the output it may act; None for everywhere.
        weights: for each image.
        strength: in nats; 0 keeps no reference in its region.
        window: fractions of the schedule in which they are kept there.
    """
    resolution = round(1024 * math.sqrt(request.megapixels)) or min(RESOLUTION, _side(request))
    pictures = [prepare(image.pixels[0].movedim(-1, 0), None, "subject", resolution) for image in request.images]
    references = tuple(
        Reference(flux_references.encode_picture(request.vae, picture), "subject", number, region, weight)
        for number, (picture, region, weight) in enumerate(zip(pictures, regions, weights), start=1)
    )
    positive = with_guidance(encode_text(request.clip, request.prompt), GUIDANCE)
    model, positive = flux_references.apply(request.model, positive, references, strength=strength, window=window)
    negative = encode_text(request.clip, request.negative)
    previews = [picture.movedim(0, -1)[None] for picture in pictures]
    return model, Wiring(positive, negative, empty_latent(request), previews)


def _side(request: Request) -> int:
    """Root of the output's area: the miniworld's is smaller than a published reference."""
    return round(math.sqrt(request.width * request.height))
