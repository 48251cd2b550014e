"""DreamO in one conditioning: its references, the learned tables, and the regions of the references."""

from __future__ import annotations

from dataclasses import dataclass, field

from .call_layout import CallLayout
from .reference_regions import ReferenceRegions
from .routing_map import Recorder
from .token_layout import DreamOEmbeddings, Reference, TokenLayout


@dataclass(eq=False)
class Routing:
    """References of one conditioning.

    Attributes:
        references: those with a weight, in the order of their slots.
        tables: DreamO's embeddings.
        strength, isolation: of the steering, in nats; see ``core.routing.reference_bias``.
        window: fractions (from, to) of the schedule in which regions and isolation act.
        words: by slot, text positions of its placeholder.
        recorder: takes the maps of every call, or None.
        first_guidance: distilled guidance of the first step, or None for the same as the others.
        regions: their regions and the steering, made of the above.
    """

    references: tuple[Reference, ...]
    tables: DreamOEmbeddings
    strength: float = 0.0
    isolation: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    words: dict[int, tuple[int, ...]] = field(default_factory=dict)
    recorder: Recorder | None = None
    first_guidance: float | None = None
    regions: ReferenceRegions = field(init=False)

    def __post_init__(self) -> None:
        self.regions = ReferenceRegions(
            tuple(reference.region for reference in self.references),
            tuple(reference.weight for reference in self.references),
            self.strength,
            self.isolation,
            self.window,
            self.recorder,
            copies_are_pictures=False,
        )

    def __deepcopy__(self, memo: dict) -> Routing:
        """Shared by clones: it holds tables and latents, and is never changed but for its caches."""
        return self

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(reference.slot for reference in self.references)

    def layout(self, sequence: TokenLayout) -> CallLayout:
        """Lay out text, picture, references and their placeholders."""
        words = (tuple(at for at in self.words.get(slot, ()) if at < sequence.text) for slot in self.slots)
        return sequence.layout(tuple(words))
