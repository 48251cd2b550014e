"""What one call of the model computes: which of its rows belong to positive conditionings, and what they show.

ComfyUI stacks the conditionings of a step in one call. Which of them are positive is told by the conditionings
themselves, as the guider holds them, never by a place in a list: guiders with three conditionings, and guidance that
calls the model once more, list them as they like. A call may also show a part of the picture only (regional
prompts, context windows, tiles of other packs), and tiles may be stacked in one batch; each row is then looked for in
the picture that the step began with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

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
        """The positive ones, in order; empty for a guider that names its groups in a way of its own."""
        return [cond for name, group in self._groups.items() if name.startswith("positive") for cond in group or []]

    def uuids(self, group: str) -> set:
        """What the guider knows a group's conditionings by, e.g. those of "negative"."""
        return {cond.get("uuid") for cond in self._groups.get(group) or []} - {None}

    @contextmanager
    def predicting(self, lists: list[list[dict] | None]) -> Iterator[None]:
        """While ComfyUI predicts from these lists of conditionings, know which group each of them is."""
        before, self._lists = self._lists, [self._group_of(each) for each in lists]
        try:
            yield
        finally:
            self._lists = before

    def is_positive(self, uuid: object, place: int) -> bool:
        """Whether a conditioning is positive.

        Args:
            uuid: its own; ComfyUI gives it to copies on the other side as well, for areas that this side lacks.
            place: of its list among those that are predicted from; tells by itself only where nothing else does.
        """
        group = self.group(place)
        if group is not None:
            return group.startswith("positive")
        known = {cond.get("uuid") for cond in self.positive()}
        return place == 0 if uuid is None or not known else uuid in known

    def group(self, place: int) -> str | None:
        """The guider's name of a list that is predicted from, "" for a list that it does not know; None outside."""
        return self._lists[place] if self._lists is not None and place < len(self._lists) else None

    def _group_of(self, conds: list[dict] | None) -> str:
        """Of a list that is the guider's own, a copy of one (context windows), or part of the positive one."""
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
        """The part of the picture a conditioning is computed on: the whole, or the area the user limited it to."""
        if uuid not in self._windows:
            conds = (cond for group in self._groups.values() for cond in group or [])
            area = next((cond["area"] for cond in conds if cond.get("uuid") == uuid and "area" in cond), None)
            self._windows[uuid] = self._box(area)
        return self._windows[uuid]

    def _box(self, area: tuple[int, ...] | None) -> Box:
        """ComfyUI's area is (height, width, top, left) in latent cells, cut at the latent's edges."""
        if area is None or len(area) != 4:
            return WHOLE_PICTURE
        height, width, top, left = area
        rows, columns = self._size
        return Box(left / columns, top / rows, min(left + width, columns) / columns, min(top + height, rows) / rows)


def plain_call(options: dict, batch: int, conditionings: Conditionings | None = None) -> ModelCall:
    """A call of whole pictures: one chunk of rows for each conditioning, in ComfyUI's order."""
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


class Tiles:
    """Finds the parts that model calls show in the picture of the step."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._picture: Tensor | None = None
        self._warned = False

    def begin_step(self, picture: Tensor) -> None:
        """(B, C, H, W), what the sampler gives the guider."""
        self._picture = picture

    def begin_prediction(self, picture: Tensor) -> None:
        """What a guider, or guidance such as SAG, has predicted; a window of the picture changes nothing."""
        if self._picture is None or picture.shape == self._picture.shape:
            self._picture = picture

    def read(self, x: Tensor, options: dict, conditionings: Conditionings) -> ModelCall:
        """The rows of a call, each with its part of the picture.

        Args:
            x: (rows, C, h, w), as the model gets it.
        """
        call = plain_call(options, x.shape[0], conditionings)
        if self._picture is None or x.ndim != 4 or self._is_plain(x, options, conditionings):
            return call
        located = [_locate(row, self._picture) for row in x]
        found = [part for part in located if part is not None]
        chunks = _chunks(located, len(options.get("cond_or_uncond") or [0]))
        if chunks is None:
            self._warn(x)
            return call
        places, uuids = options.get("cond_or_uncond") or [0], options.get("uuids")
        positive: dict[tuple, list[int]] = {}
        for row, (chunk, (_, window)) in enumerate(zip(chunks, found)):
            uuid = None if uuids is None else uuids[chunk]
            if conditionings.is_positive(uuid, places[chunk]):
                positive.setdefault((chunk if uuid is None else uuid, window), []).append(row)
        return ModelCall(
            x.shape[0],
            tuple(
                Rows(tuple(rows), uuid, window, tuple(found[row][0] for row in rows))
                for (uuid, window), rows in positive.items()
            ),
        )

    def _is_plain(self, x: Tensor, options: dict, conditionings: Conditionings) -> bool:
        """Whether the call has one chunk of whole pictures, or of one area, for each conditioning."""
        uuids = options.get("uuids") or [None]
        count = len(options.get("cond_or_uncond") or [0])
        assert self._picture is not None, "`read` asks behind its own check"
        rows, columns = self._picture.shape[-2:]
        window = conditionings.window(uuids[0])
        area = (round((window.y1 - window.y0) * rows), round((window.x1 - window.x0) * columns))
        return x.shape[0] == count * self._picture.shape[0] and tuple(x.shape[-2:]) == area

    def _warn(self, x: Tensor) -> None:
        if not self._warned and self._picture is not None:
            self._warned = True
            log.warning(
                "Relate: the model is called with parts of %d x %d of a picture of %d x %d that Apply Identity "
                "cannot find in it; each part gets the boxes as if it were the whole picture. Put Apply "
                "Identity on a model that is not cut into tiles, or use layout 'none'.",
                *x.shape[-2:],
                *self._picture.shape[-2:],
            )


def _locate(row: Tensor, picture: Tensor) -> tuple[int, Box] | None:
    """Where (C, h, w) stands in (B, C, H, W): the picture's number and its part; None if it is nowhere."""
    height, width = row.shape[-2:]
    rows, columns = picture.shape[-2:]
    if row.shape[0] != picture.shape[1] or height > rows or width > columns:
        return None
    corners = picture[:, :, : rows - height + 1, : columns - width + 1] == row[None, :, :1, :1].to(picture)
    for number, top, left in corners.all(dim=1).nonzero().tolist():
        part = picture[number, :, top : top + height, left : left + width]
        if torch.equal(part, row.to(part)):
            return number, Box(left / columns, top / rows, (left + width) / columns, (top + height) / rows)
    return None


def _chunks(found: list[tuple[int, Box] | None], count: int) -> list[int] | None:
    """For each row the chunk it belongs to: rows that show the same part are in the order of the conditionings.

    None where a row was not found, or a part does not come once for each conditioning.
    """
    seen: dict[tuple[int, Box] | None, int] = {}
    chunks = []
    for part in found:
        chunks.append(seen.get(part, 0))
        seen[part] = seen.get(part, 0) + 1
    return chunks if None not in seen and all(times == count for times in seen.values()) else None
