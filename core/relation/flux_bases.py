"""The Flux-class transformers a relation LoRA is made for, told apart by their sizes.

Two models of one size are one here: FLUX.1 dev, schnell, Krea and Kontext share every shape, and so do the base and the
distilled Klein. Counts: the published configs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FluxShape:
    """What tells one Flux-class transformer from another.

    Attributes:
        generation: 1 (each block has its own modulation, single blocks have q, k, v apart) or 2.
        width: channels of a token.
        double, single: how many blocks of each kind.
    """

    generation: int
    width: int
    double: int
    single: int


@dataclass(frozen=True)
class FluxBase:
    """A published model: its name for people, its shape, its ModelSpec architecture."""

    title: str
    shape: FluxShape
    architecture: str


_FLUX1 = FluxShape(1, 3072, 19, 38)
FLUX_BASES = {  # by the value of ``base`` in a file's metadata
    "flux1-dev": FluxBase("FLUX.1", _FLUX1, "flux-1-dev"),
    "kontext": FluxBase("FLUX.1 Kontext", _FLUX1, "flux-1-dev"),
    "klein-4b": FluxBase("FLUX.2 Klein 4B", FluxShape(2, 3072, 5, 20), "Flux.2-klein-4b"),
    "klein-9b": FluxBase("FLUX.2 Klein 9B", FluxShape(2, 4096, 8, 24), "Flux.2-klein-9b"),
    "flux2-dev": FluxBase("FLUX.2 dev", FluxShape(2, 6144, 8, 48), "Flux.2-dev"),
    "miniworld-flux": FluxBase("the miniworld's Flux", FluxShape(1, 160, 3, 6), "miniworld-flux"),
}
