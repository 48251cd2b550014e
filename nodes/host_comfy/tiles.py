"""Find the parts of a picture that calls of the model show."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ...core.scene import Box
from .model_calls import Conditionings, ModelCall, Rows, plain_call

log = logging.getLogger(__name__)


class Tiles:
    """Finds the parts that model calls show in the picture of the step."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._picture: Tensor | None = None
        self._warned = False

    def begin_step(self, picture: Tensor) -> None:
        """Keep the picture (B, C, H, W) that the sampler gives the guider."""
        self._picture = picture

    def begin_prediction(self, picture: Tensor) -> None:
        """Keep the picture that a guider, or guidance such as SAG, predicts from, unless it is a window."""
        if self._picture is None or picture.shape == self._picture.shape:
            self._picture = picture

    def read(self, x: Tensor, options: dict, conditionings: Conditionings) -> ModelCall:
        """Describe the rows of a call, each with its part of the picture.

        Args:
            x: (rows, C, h, w), as the model gets it.
        """
        call = plain_call(options, x.shape[0], conditionings)
        if self._picture is None or x.ndim != 4 or self._is_plain(x, options, conditionings):
            return call
        # look for each row in the step's picture
        located = [_locate(row, self._picture) for row in x]
        parts = [part for part in located if part is not None]
        chunks = _chunks(located, len(options.get("cond_or_uncond") or [0]))
        if chunks is None:
            self._warn(x)
            return call

        # group the positive ones by conditioning and part
        places, uuids = options.get("cond_or_uncond") or [0], options.get("uuids")
        positive: dict[tuple, list[int]] = {}
        for row, (chunk, (_, window)) in enumerate(zip(chunks, parts)):
            uuid = None if uuids is None else uuids[chunk]
            if conditionings.is_positive(uuid, places[chunk]):
                positive.setdefault((chunk if uuid is None else uuid, window), []).append(row)
        return ModelCall(
            x.shape[0],
            tuple(
                Rows(tuple(rows), uuid, window, tuple(parts[row][0] for row in rows))
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
    """Find (C, h, w) in (B, C, H, W): the picture's number and its part; None if it is nowhere."""
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


def _chunks(located: list[tuple[int, Box] | None], count: int) -> list[int] | None:
    """Assign each row to its chunk: rows that show the same part are in the order of the conditionings.

    None where a row was not located, or a part does not come once for each conditioning.
    """
    counts: dict[tuple[int, Box] | None, int] = {}
    chunks = []
    for part in located:
        chunks.append(counts.get(part, 0))
        counts[part] = counts.get(part, 0) + 1
    return chunks if None not in counts and all(times == count for times in counts.values()) else None
