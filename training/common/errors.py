"""Everything that is wrong with a request, in one report: the user mends it once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


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


def all_or_faults(*steps: Callable[[], Any]) -> list[Any]:
    """The results of all steps, or what is wrong with any of them in one report.

    Args:
        steps: each may raise Faults, or ValueError for one fault.

    Raises:
        Faults: of every step.
    """
    results, faults = [], []
    for step in steps:
        try:
            results.append(step())
        except Faults as error:
            faults += error.found
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise Faults(faults)
    return results
