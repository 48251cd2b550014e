"""Draw the value of a RELATE_ROUTING_MAP socket as pictures and masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.routing.routing_map import Recording, RoutingMap
from ..drawing.heat_map import heat_maps, heat_masks

TOKEN_PIXELS = 16


def pictures_of(routing_map: RoutingMap | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Draw heat maps (B * R, H, W, 3) and masks (B * R, H, W) by picture; one black one if nothing was recorded."""
    if routing_map is None:
        return torch.zeros(1, *size, 3), torch.zeros(1, *size)
    maps = routing_map.maps.flatten(0, 1)
    return heat_maps(maps, size), heat_masks(maps, size)


def preview(routing_map: RoutingMap | Recording | None, number: int, image: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw the maps of one reference: pictures (B, H, W, 3) and masks (B, H, W).

    Args:
        routing_map: as a sampler recorded it, or the recording that a sampler fills before this runs.
        number: of the reference.
        image: to lay the maps over, or None.

    Raises:
        ValueError: nothing was recorded, no such reference, or another number of pictures.
    """
    if isinstance(routing_map, Recording):
        left_out = routing_map.recorder.left_out
        routing_map = routing_map.read()
        if routing_map is None and left_out:
            raise ValueError(
                f"routing_map: expected recorded maps, got none: in all {left_out} model calls another node skipped or "
                "repeated blocks of the model (block caches, skip-layer guidance). Leave it out while you record."
            )
        if routing_map is None:
            raise ValueError(
                "routing_map: expected recorded maps, got none: no sampler has run yet. Connect the "
                "picture to image, so that this node runs after the sampler."
            )
    if routing_map is None:
        raise ValueError(
            "routing_map: expected recorded maps, got none. Set record to maps in Keep References in "
            "Place or Routing-aware Flux Sampler, with at least one reference of a weight above 0."
        )
    if number not in routing_map.slots:
        raise ValueError(f"reference: expected one of {', '.join(map(str, routing_map.slots))}, got {number}.")
    maps = routing_map.maps[:, routing_map.slots.index(number)]
    if image is not None and image.shape[0] not in (1, maps.shape[0]):
        raise ValueError(
            f"image: expected one picture, or one for each of the {maps.shape[0]} maps, got {image.shape[0]}."
        )
    rows, columns = maps.shape[-2:]
    size = (TOKEN_PIXELS * rows, TOKEN_PIXELS * columns) if image is None else (image.shape[1], image.shape[2])
    return heat_maps(maps, size, None if image is None else image.to(maps.device)), heat_masks(maps, size)
