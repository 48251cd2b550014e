"""Errors that a user can mend, collected and reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class UserErrors(Exception):
    """One or more things a user can mend; a command that ends with it ends with exit code 2.

    Attributes:
        messages: one sentence each: where, what was expected, what came, what to do.
    """

    def __init__(self, messages: Iterable[str] | str) -> None:
        self.messages = [messages] if isinstance(messages, str) else list(messages)
        super().__init__(self.messages)

    def __str__(self) -> str:
        if len(self.messages) == 1:
            return self.messages[0]
        numbered = "\n".join(f"  {i}. {fault}" for i, fault in enumerate(self.messages, 1))
        return f"{len(self.messages)} faults:\n{numbered}"


def first_few(faults: list[str], most: int, where: str = "") -> list[str]:
    """Cut a list of faults of one kind short; a last sentence, which ``where`` begins, counts the others."""
    others = len(faults) - most
    return faults if others <= 0 else [*faults[:most], f"{where}{others} more of this kind."]


def all_or_faults(*steps: Callable[[], Any]) -> list[Any]:
    """Return the results of all steps, or what is wrong with any of them in one report.

    Args:
        steps: each may raise UserErrors, or ValueError for one fault.

    Raises:
        UserErrors: of every step.
    """
    results, faults = [], []
    for step in steps:
        try:
            results.append(step())
        except UserErrors as error:
            faults += error.messages
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise UserErrors(faults)
    return results
