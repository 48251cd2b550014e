"""The losses as curves, drawn with PIL alone, so that training needs no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from PIL import Image, ImageDraw

from ..common.sheets import COLOURS, FAINT, INK, PAPER, font


def loss_chart(
    curves: Mapping[str, Sequence[float]], first_step: int = 1, size: tuple[int, int] = (900, 260)
) -> Image.Image:
    """Draw one panel per loss: every step faint, a running mean strong, its first and last value in numbers."""
    width, height = size
    chart = Image.new("RGB", (width, height * len(curves)), PAPER)
    draw = ImageDraw.Draw(chart)
    for panel, (name, values) in enumerate(curves.items()):
        frame = (70, panel * height + 34, width - 20, (panel + 1) * height - 30)
        _panel(draw, frame, name, list(values), first_step, COLOURS[panel % len(COLOURS)])
    return chart


def _panel(
    draw: ImageDraw.ImageDraw,
    frame: tuple[int, int, int, int],
    name: str,
    values: list[float],
    first_step: int,
    colour: tuple[int, int, int],
) -> None:
    # 1. the frame
    left, top, right, bottom = frame
    draw.rectangle(frame, outline=FAINT)
    if not values:
        return
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    window = max(1, len(values) // 20)
    sums = [0.0, *accumulate(values)]  # a run of 100,000 steps is drawn a thousand times
    starts = [max(0, i - window + 1) for i in range(len(values))]
    smooth = [(sums[i + 1] - sums[start]) / (i + 1 - start) for i, start in enumerate(starts)]

    def place(step: int, value: float) -> tuple[float, float]:
        return (
            left + (right - left) * step / max(1, len(values) - 1),
            bottom - 4 - (bottom - top - 8) * (value - low) / span,
        )

    # 2. lines
    for quarter in range(1, 4):
        y = top + (bottom - top) * quarter / 4
        draw.line((left, y, right, y), fill=(238, 238, 242))
    pale = tuple((part + 2 * 255) // 3 for part in colour)
    if len(values) > 1:
        draw.line([place(i, value) for i, value in enumerate(values)], fill=pale, width=1)
        draw.line([place(i, value) for i, value in enumerate(smooth)], fill=colour, width=3)
    # 3. numbers
    first, last = (sum(part) / window for part in (values[:window], values[-window:]))
    draw.text((left, top - 26), f"{name}:  {first:.4g} to {last:.4g}  (mean of {window} steps)", INK, font(16))
    draw.text((8, top - 2), _short(high), INK, font(12))
    draw.text((8, bottom - 14), _short(low), INK, font(12))
    draw.text((left, bottom + 6), f"step {first_step}", INK, font(12))
    draw.text((right - 60, bottom + 6), f"step {first_step + len(values) - 1}", INK, font(12))


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
