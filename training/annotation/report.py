"""Report of an annotation: a verdict for each triplet and gate, for people and for the rounds of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

PASS, WARN, REJECT, NOT_JUDGED = "pass", "warn", "reject", "not judged"
REJECTED = "rejected"  # folder of OUT for triplets that are not accepted


@dataclass(frozen=True)
class GateResult:
    """One gate of one triplet.

    Attributes:
        status: pass, warn, reject, or not judged (nobody can say; never a reason to reject).
        value: the number, the worst over the subjects; None where there is none.
        threshold: the number that rejects; None where there is none.
        sentence: what is wrong and what to do; empty if it passes.
    """

    status: str
    value: float | None = None
    threshold: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class TripletReport:
    """One triplet.

    Attributes:
        name: of its folder.
        gates: by name.
        decision: accept or reject by a person, or empty.
        complete: whether it has all fields of a line of triplets.jsonl.
    """

    name: str
    gates: Mapping[str, GateResult]
    decision: str = ""
    complete: bool = True
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the triplet is complete and a person, or else every gate, accepts it."""
        if not self.complete or self.decision == REJECT:
            return False
        return self.decision == "accept" or not any(gate.status == REJECT for gate in self.gates.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is rejected; nothing if it is accepted."""
        if self.accepted:
            return ()
        by_person = (f"{self.name}: rejected by decisions.json.",) if self.decision == REJECT else ()
        return by_person + tuple(gate.sentence for gate in self.gates.values() if gate.status == REJECT)


@dataclass(frozen=True)
class Report:
    """All triplets.

    Attributes:
        triplets: in the order of their names.
        models: by role: name and licence.
        thresholds: that were used.
        seconds: by stage, of this run.
        versions: of packages.
    """

    triplets: tuple[TripletReport, ...]
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> list[str]:
        return [triplet.name for triplet in self.triplets if triplet.accepted]

    @property
    def rejected(self) -> list[str]:
        return [triplet.name for triplet in self.triplets if not triplet.accepted]

    @property
    def yields(self) -> dict[str, float]:
        """Share of the triplets that each gate lets through, of those it could judge."""
        passes_by_gate: dict[str, list[bool]] = {}
        for triplet in self.triplets:
            for name, gate in triplet.gates.items():
                if gate.status != NOT_JUDGED:
                    passes_by_gate.setdefault(name, []).append(gate.status != REJECT)
        return {name: sum(passes) / len(passes) for name, passes in passes_by_gate.items()}

    def table(self) -> dict[str, Any]:
        """Make the content of report.json."""
        rows = {
            one.name: {
                "accepted": one.accepted,
                "decision": one.decision,
                "notes": list(one.notes),
                "gates": {name: asdict(gate) for name, gate in one.gates.items()},
            }
            for one in self.triplets
        }
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "yield": self.yields,
            "models": dict(self.models),
            "thresholds": dict(self.thresholds),
            "seconds": dict(self.seconds),
            "versions": dict(self.versions),
            "triplets": rows,
        }
