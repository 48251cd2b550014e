"""Widgets that several nodes have, bounded and worded in one place."""

from __future__ import annotations

from comfy_api.latest import io


def window(begins: str, stops: str, optional: bool = False) -> list[io.Float.Input]:
    """Make the widgets of the part of the schedule in which something acts: `start_at`, `end_at`, from 0 to 1.

    Args:
        begins, stops: the tooltip's words behind "Fraction of the schedule at which".
        optional: whether saved graphs may lack them.
    """
    bounds = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": optional}
    return [
        io.Float.Input("start_at", default=0.0, tooltip=f"Fraction of the schedule at which {begins}", **bounds),
        io.Float.Input("end_at", default=1.0, tooltip=f"Fraction of the schedule at which {stops}", **bounds),
    ]


def nats(name: str, default: float, tooltip: str, optional: bool = False) -> io.Float.Input:
    """Make the widget of a bias on attention, 0 to 20 nats: 0 is off, 20 closes."""
    return io.Float.Input(name, default=default, min=0.0, max=20.0, step=0.1, optional=optional, tooltip=tooltip)


def record(tooltip: str) -> io.Combo.Input:
    """Make the switch that records maps of the attention."""
    return io.Combo.Input("record", options=["off", "maps"], default="off", tooltip=f"maps: {tooltip}")
