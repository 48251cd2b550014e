"""The rows of a model call that belong to positive conditionings, and the part of the picture they show.

ComfyUI stacks the conditionings of a step in one call. Which of them are positive is read from the conditionings
themselves, as the guider holds them, never from a place in a list: guiders with three conditionings, and guidance that
calls the model once more, list them as they like. A call may also show a part of the picture only (regional
prompts, context windows, tiles of other packs), and tiles may be stacked in one batch; each row is then looked for in
the picture that the step began with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...core.scene import WHOLE_PICTURE, Box

log = logging.getLogger(__name__)

CALL = "relate_call"


@dataclass(frozen=True)
class Rows:
    """Rows of a model call that show the same part of the picture under the same positive conditioning.

    Attributes:
        rows: their numbers in the batch.
        uuid: of the conditioning, or its place in the call where ComfyUI gives none.
        window: the part of the picture.
        pictures: for each row the number of its picture in the batch that is sampled.
    """

    rows: tuple[int, ...]
    uuid: object
    window: Box
    pictures: tuple[int, ...]

    @property
    def where(self) -> slice | list[int]:
        """For indexing; a slice where they follow each other, so that nothing is copied."""
        first, last = self.rows[0], self.rows[-1] + 1
        return slice(first, last) if self.rows == tuple(range(first, last)) else list(self.rows)


@dataclass(frozen=True)
class ModelCall:
    """One call of the model.

    Attributes:
        batch: number of its rows.
        positive: those of positive conditionings.
    """

    batch: int
    positive: tuple[Rows, ...]


class Conditionings:
    """The conditionings of a running guider."""

    def __init__(self, guider, size: tuple[int, int]) -> None:
        self._guider = guider
        self._size = size
        self._windows: dict[object, Box] = {}
        self._lists: list[str] | None = None

    @property
    def _groups(self) -> dict[str, list[dict]]:
        """By name; a guider of another pack may have none, or not yet."""
        return getattr(self._guider, "conds", None) or {}

    def positive(self) -> list[dict]:
        """Return the positive ones, in order; empty for a guider that names its groups in a way of its own."""
        return [cond for name, group in self._groups.items() if name.startswith("positive") for cond in group or []]

    def uuids(self, group: str) -> set:
        """Collect the guider's ids of a group's conditionings, e.g. those of "negative"."""
        return {cond.get("uuid") for cond in self._groups.get(group) or []} - {None}

    @contextmanager
    def predicting(self, lists: list[list[dict] | None]) -> Iterator[None]:
        """Note the group of each of these lists while ComfyUI predicts from them."""
        before, self._lists = self._lists, [self._group_of(each) for each in lists]
        try:
            yield
        finally:
            self._lists = before

    def is_positive(self, uuid: object, place: int) -> bool:
        """Whether a conditioning is positive.

        Args:
            uuid: its own; ComfyUI gives it to copies on the other side as well, for areas that this side lacks.
            place: of its list among those that are predicted from; decides only where nothing else does.
        """
        group = self.group(place)
        if group is not None:
            return group.startswith("positive")
        positive = {cond.get("uuid") for cond in self.positive()}
        return place == 0 if uuid is None or not positive else uuid in positive

    def group(self, place: int) -> str | None:
        """Return the guider's name of the list that is predicted from.

        "" is a list that it does not know; None is outside of a prediction.
        """
        return self._lists[place] if self._lists is not None and place < len(self._lists) else None

    def _group_of(self, conds: list[dict] | None) -> str:
        """Find the group of a list: the guider's own, a copy of one (context windows), or part of the positive one."""
        groups = {name: group for name, group in self._groups.items() if group}
        same = [name for name, group in groups.items() if group is conds]
        uuids = [cond.get("uuid") for cond in conds or []]
        same = same or [name for name, group in groups.items() if [cond.get("uuid") for cond in group] == uuids]
        if same:
            return same[0]
        others = {
            cond.get("uuid") for name, group in groups.items() if not name.startswith("positive") for cond in group
        }
        positive = {cond.get("uuid") for cond in self.positive()}
        part = bool(uuids) and all(uuid in positive for uuid in uuids) and any(uuid not in others for uuid in uuids)
        return "positive" if part else ""

    def window(self, uuid: object) -> Box:
        """Return the part of the picture that a conditioning is computed on: the whole, or the user's area."""
        if uuid not in self._windows:
            conds = (cond for group in self._groups.values() for cond in group or [])
            area = next((cond["area"] for cond in conds if cond.get("uuid") == uuid and "area" in cond), None)
            self._windows[uuid] = self._box(area)
        return self._windows[uuid]

    def _box(self, area: tuple[int, ...] | None) -> Box:
        """Convert ComfyUI's area, (height, width, top, left) in latent cells, cut at the latent's edges."""
        if area is None or len(area) != 4:
            return WHOLE_PICTURE
        height, width, top, left = area
        rows, columns = self._size
        return Box(left / columns, top / rows, min(left + width, columns) / columns, min(top + height, rows) / rows)


def plain_call(options: dict, batch: int, conditionings: Conditionings | None = None) -> ModelCall:
    """Describe a call of whole pictures: one chunk of rows for each conditioning, in ComfyUI's order."""
    places = options.get("cond_or_uncond") or [0]
    uuids = options.get("uuids") or [None] * len(places)
    size = batch // len(places)
    positive = []
    for chunk, (place, uuid) in enumerate(zip(places, uuids)):
        if place == 0 if conditionings is None else conditionings.is_positive(uuid, place):
            window = WHOLE_PICTURE if conditionings is None else conditionings.window(uuid)
            positive.append(
                Rows(
                    tuple(range(chunk * size, (chunk + 1) * size)),
                    chunk if uuid is None else uuid,
                    window,
                    tuple(range(size)),
                )
            )
    return ModelCall(batch, tuple(positive))
