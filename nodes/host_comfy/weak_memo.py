"""Results remembered by the identity of what they were made from, and only for as long as all of it lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch.utils.weak import WeakIdKeyDictionary


class _Nothing:
    """Stands for an input that was left unconnected; lives as long as the program."""


NOTHING = _Nothing()


class WeakMemo:
    """A memory keyed by objects, not by their values; an entry goes with the first of its objects.

    A result must not refer to the objects it is kept for, or it would keep them alive.
    """

    def __init__(self) -> None:
        self._entries = WeakIdKeyDictionary()

    def once(self, owners: tuple[object | None, ...], what: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of ``compute``, computed once.

        Args:
            owners: objects the result was made from, None for one that is absent.
            what: key among several results of the same objects.
        """
        entry: Any = self._entries
        for owner in owners:
            entry = entry.setdefault(NOTHING if owner is None else owner, WeakIdKeyDictionary())
        results = entry.setdefault(NOTHING, {})
        if what not in results:
            results[what] = compute()
        return results[what]
