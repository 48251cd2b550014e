"""Everything that is wrong with a request, in one report: the user mends it once."""

from __future__ import annotations

from collections.abc import Iterable


class Faults(Exception):
    """One or more things a user can mend; a command that ends with it ends with exit code 2.

    Attributes:
        found: one sentence each: where, what was expected, what came, what to do.
    """

    def __init__(self, found: Iterable[str] | str) -> None:
        self.found = [found] if isinstance(found, str) else list(found)
        super().__init__(self.found)

    def __str__(self) -> str:
        if len(self.found) == 1:
            return self.found[0]
        return f"{len(self.found)} faults:\n" + "\n".join(f"  {i}. {fault}" for i, fault in enumerate(self.found, 1))
