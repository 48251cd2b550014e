"""Regions of the references of one conditioning, their strength and window, and the recorder of their maps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .call_layout import CallLayout, Grid, Span
from .image_prep import resize
from .reference_bias import HARD, Steering, check_regions
from .routing_map import Recorder
from .steered_attention import SteeredAttention, steered_attention

Area = tuple[int, ...]  # height, width, top, left in latent cells; with a time axis frames before either two
HARD_FROM = 20.0  # nats: from here on a border is closed altogether


@dataclass(eq=False)
class ReferenceRegions:
    """Regions and settings, shared by all conditionings and clones they are given to.

    Attributes:
        regions: for each reference (H, W) in [0, 1] of any size, or None for everywhere.
        weights: factor on the attention that each reference gets, before it is normalised; 0 leaves it unread.
        strength, isolation: in nats; see ``core.routing.reference_bias``. From HARD_FROM on they are HARD.
        window: fractions (from, to) of the schedule in which regions and isolation act; weights always do.
        recorder: takes the maps of every call, or None.
        copies_are_pictures: copies of references in the text come from a vision encoder.
        warnings: those of this run, each logged once.
        reached: the network of this run has come to us.
        own_latents: by the shapes of all reference latents of a call, which of them are ours; of this run.
    """

    regions: tuple[Tensor | None, ...]
    weights: tuple[float, ...]
    strength: float = 0.0
    isolation: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    recorder: Recorder | None = None
    copies_are_pictures: bool = True
    warnings: set[str] = field(default_factory=set, repr=False, init=False)
    reached: bool = field(default=False, repr=False, init=False)
    own_latents: dict[tuple, tuple[int, ...]] = field(default_factory=dict, repr=False, init=False)
    _attentions: dict = field(default_factory=dict, repr=False, init=False)

    def __deepcopy__(self, memo: dict) -> ReferenceRegions:
        """Shared by clones: it is never changed, but for its caches and the maps it records."""
        return self

    def begin(self) -> None:
        """Begin another run: forget the maps, warnings and attentions of the one before."""
        self.warnings.clear()
        self.reached = False
        self.own_latents.clear()
        self._attentions.clear()
        if self.recorder is not None:
            self.recorder.reset()

    @property
    def steers(self) -> bool:
        """Whether anything is added anywhere, at some time."""
        during = self.window[0] < self.window[1] and (
            self.isolation != 0 or (self.strength != 0 and any(region is not None for region in self.regions))
        )
        return during or any(weight != 1 for weight in self.weights)

    def recorded(self, later: ReferenceRegions) -> ReferenceRegions:
        """Copy for the recorder of later regions, whose further references may act everywhere."""
        more = len(later.regions) - len(self.regions)
        regions, weights = self.regions + (None,) * more, self.weights + (1.0,) * more
        return replace(self, regions=regions, weights=weights, recorder=later.recorder)

    def attention(
        self,
        layout: CallLayout,
        queries: Span,
        area: Area | None = None,
        picture: tuple[int, int] | None = None,
        inside: bool = True,
        device: torch.device | str = "cpu",
    ) -> SteeredAttention | None:
        """Return the replacement of plain attention, made once for each layout; None for plain.

        Args:
            layout: of the attention's keys.
            queries: which of their tokens have queries.
            area: the part of the picture that a regional conditioning is computed on.
            picture: (h, w) of the whole latent, where an area is given.
            inside: whether the step is inside the window.
            device: where the queries are.
        """
        key = (layout, queries, area, picture, inside, device)
        if key not in self._attentions:
            steering = self.steering(layout.grid, area, picture, inside)
            check_regions(steering, layout)
            self._attentions[key] = steered_attention(steering, layout, queries, torch.device(device))
        return self._attentions[key]

    def steering(self, grid: Grid, area: Area | None, picture: tuple[int, int] | None, inside: bool) -> Steering:
        """Return the settings on a token grid."""
        regions = tuple(
            None if region is None or not inside else self._on_grid(region, grid, area, picture)
            for region in self.regions
        )
        return Steering(
            _nats(self.strength),
            _nats(self.isolation) if inside else 0.0,
            self.weights,
            regions,
            copies_are_pictures=self.copies_are_pictures,
        )

    def _on_grid(self, region: Tensor, grid: Grid, area: Area | None, picture: tuple[int, int] | None) -> Tensor:
        """Return a region on the token grid, cut to the area of a regional conditioning."""
        region = region.float().cpu()
        if area is None or picture is None:
            return resize(region, *grid)
        axes = len(area) // 2
        (height, width), (top, left) = area[axes - 2 : axes], area[-2:]
        return resize(resize(region, *picture)[top : top + height, left : left + width], *grid)


def _nats(strength: float) -> float:
    return HARD if strength >= HARD_FROM else strength


def attend_plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d) + M) V as ``SteeredAttention`` wants its backend: (B, H, S, d) each to (B, S, H d)."""
    grouped = key.shape[1] != query.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=grouped)
    return out.transpose(1, 2).flatten(2)
