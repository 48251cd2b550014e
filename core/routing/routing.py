"""One conditioning's references, and the attention that takes the place of plain attention when they are steered."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .condition import Grid, Reference, Sequence, Tables
from .photograph import resize
from .routing_map import Recorder
from .steering import (
    Bias,
    Channels,
    Steering,
    attend_channels,
    attend_dense,
    bias_of,
    check_regions,
)

Area = tuple[int, ...]  # height, width, top, left in latent cells


@dataclass(eq=False)
class Routing:
    """What one conditioning carries: its references, and how they are steered and recorded.

    Attributes:
        references: those with a weight, in the order of their slots.
        tables: DreamO's embeddings.
        strength, isolation: of the steering, in nats; see ``core.routing.steering``.
        window: sigmas (from, to) in which it is steered; from included, to excluded.
        words: by slot, text positions of its placeholder.
        recorder: takes the maps of every call, or None.
        first_guidance: distilled guidance of the first step, or None for the same as the others.
        picture: (h, w) of the whole latent, where known; regional conditioning sees a part of it.
    """

    references: tuple[Reference, ...]
    tables: Tables
    strength: float = 0.0
    isolation: float = 0.0
    window: tuple[float, float] = (float("inf"), -1.0)
    words: dict[int, tuple[int, ...]] = field(default_factory=dict)
    recorder: Recorder | None = None
    first_guidance: float | None = None
    picture: tuple[int, int] | None = None
    _kept: dict = field(default_factory=dict, repr=False, init=False)

    def __deepcopy__(self, memo: dict) -> Routing:
        """Shared by clones: it holds tables and latents, and is never changed but for what it keeps."""
        return self

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(reference.slot for reference in self.references)

    @property
    def steers(self) -> bool:
        return any(reference.weight != 1 for reference in self.references) or self.isolation != 0 or (
            self.strength != 0 and any(reference.region is not None for reference in self.references))

    def steering(self, sequence: Sequence, area: Area | None, inside: bool) -> Steering:
        """Weights always act; regions and isolation inside the window."""
        regions = tuple(self._region(reference, sequence.image, area) if inside else None
                        for reference in self.references)
        words = tuple(tuple(at for at in self.words.get(slot, ()) if at < sequence.text) for slot in self.slots)
        return Steering(self.strength, self.isolation if inside else 0.0,
                        tuple(reference.weight for reference in self.references), regions, words)

    def _region(self, reference: Reference, grid: Grid, area: Area | None) -> Tensor | None:
        """A region on the token grid, cut to the area a regional conditioning is computed on."""
        region = reference.region
        if region is None or area is None or self.picture is None:
            return None if region is None else resize(region.float(), *grid)
        height, width, top, left = area
        rows, columns = self.picture
        whole = resize(region.float(), rows, columns)
        return resize(whole[top:top + height, left:left + width], *grid)

    def attention(self, sequence: Sequence, area: Area | None, inside: bool, width: int, device: torch.device,
                  dtype: torch.dtype) -> Attention | None:
        """What attends in the place of plain attention, made once a layout, dtype and device; None for plain."""
        key = (sequence, area, inside, width, device, dtype)
        if key not in self._kept:
            steering = self.steering(sequence, area, inside)
            check_regions(steering, sequence)
            bias = bias_of(steering, sequence)
            self._kept[key] = None if bias is None else Attention.of(bias.to(device), width, dtype)
        return self._kept[key]


@dataclass(frozen=True, eq=False)
class Attention:
    """Steered attention, as channels: on the CPU never slower than the matrix (tests.bench.routing), and maskless."""

    bias: Bias
    channels: Channels

    @classmethod
    def of(cls, bias: Bias, width: int, dtype: torch.dtype) -> Attention:
        """For heads of ``width`` channels."""
        return cls(bias, Channels.of(bias, width, dtype))

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, S, d) each to (B, H, S, d); mask is another pack's, additive."""
        if mask is not None:  # beside another mask (Redux) the bias must be written out
            return attend_dense(query, key, value, self.bias.dense(query.dtype) + mask)
        return attend_channels(query, key, value, self.channels)
