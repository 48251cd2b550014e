"""Values of command lines, checked when they are read: `type=` for argparse, which ends with exit code 2."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from .schema import check_path


def add_training_options(parser: argparse.ArgumentParser, pictures: str) -> None:
    """Add what every command that trains from a config takes; `pictures` names its data."""
    parser.add_argument("config", metavar="CONFIG.toml", help="the settings of the run, e.g. one of training/configs")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="table.key=value",
        dest="overrides",
        help="a key of the config, differently; once for each key",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    parser.add_argument("--dry-run", action="store_true", help="validate, print the plan and the memory, train nothing")
    parser.add_argument(
        "--preview-data", type=path, metavar="SHEET.png", help=f"draw what was understood of the {pictures}; stop"
    )


def path(text: str) -> Path:
    """Return a path that file systems take, with ``~`` expanded."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got nothing")
    try:
        return Path(check_path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole(low: int = 1, high: int = 2**31) -> Callable[[str], int]:
    """Return a whole number in a range, both ends included."""

    def read(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or len(text) > 20 or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text}")
        return int(text)

    return read


def positive(text: str) -> float:
    """Return a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text}")
    return number


def device(text: str) -> str:
    """Return a device of torch that this machine has, e.g. ``cpu``, ``cuda``, ``cuda:1``."""
    try:
        target = torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"expected cpu, cuda, cuda:1 or mps, got {text}") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (target.index or 0) >= count.get(target.type, 0):
        has = ", ".join(f"{number} x {kind}" for kind, number in count.items() if number)
        raise argparse.ArgumentTypeError(f"this machine has no {text}; it has {has}")
    return text


def device_or_auto(text: str) -> str:
    """Return a device as `device` does, or ``auto``: the GPU where there is one."""
    return text if text == "auto" else device(text)
