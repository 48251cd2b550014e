"""TOML to frozen dataclasses: unknown, missing, mistyped and out-of-range keys, all of them in one report."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tomllib

from .errors import Faults

Settings = TypeVar("Settings")
_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def number(default: float = MISSING, low: float = -math.inf, high: float = math.inf) -> Any:
    """A number with bounds, both included."""
    return field(default=default, metadata={"low": low, "high": high})


def choice(default: str, *others: str) -> Any:
    """One of some words."""
    return field(default=default, metadata={"choices": (default, *others)})


def read_settings(kind: type[Settings], path: str | Path, overrides: Sequence[str],
                  contradictions: Callable[[Settings], list[str]]) -> Settings:
    """Read a TOML file.

    Args:
        kind: a dataclass of dataclasses; each key's range or choices are its field's metadata.
        path: the file.
        contradictions: finds what is right alone and wrong together.
        overrides: ``table.key=value`` from the command line, values as in TOML (a bare word is a string).

    Raises:
        Faults: unreadable, unknown, missing, mistyped, out of range or contradictory keys, all of them.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise Faults(f"{path}: cannot be read ({error.strerror}). Give the path of a TOML file, e.g. one of "
                     "training/configs.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Faults(f"{path}: not TOML: {error}.") from error
    faults: list[str] = []
    for override in overrides:
        _apply(override, settings, faults)
    config = _build(kind, settings, "", faults)
    if config is not None:
        faults += contradictions(config)
    if faults:
        raise Faults(f"{path}: {fault}" for fault in faults)
    return config


def _apply(override: str, settings: dict, faults: list[str]) -> None:
    name, equals, text = override.partition("=")
    *tables, key = name.strip().split(".")
    if not equals or not key:
        faults.append(f"--set {override}: expected table.key=value, e.g. --set train.steps=200.")
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for table in tables:
        settings = settings.setdefault(table, {})
        if not isinstance(settings, dict):
            faults.append(f"--set {override}: '{table}' is a value, not a table.")
            return
    settings[key] = value


def _build(kind: type, given: dict, where: str, faults: list[str]) -> Any:
    """One dataclass from one table; None if anything is wrong with it."""
    before = len(faults)
    known = {entry.name: entry for entry in fields(kind)}
    hints = get_type_hints(kind)
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            faults.append(f"{where}{key}: unknown key." + (f" Did you mean {where}{close[0]}?" if close else
                                                           f" Known here: {', '.join(known)}."))
    values = {}
    for key, entry in known.items():
        if is_dataclass(hints[key]):
            table = given.get(key, {})
            if isinstance(table, dict):
                values[key] = _build(hints[key], table, f"{where}{key}.", faults)
            else:
                faults.append(f"{where}{key}: expected a table [{key}], got {table!r}.")
        elif key in given:
            values[key] = _checked(given[key], hints[key], entry, f"{where}{key}", faults)
        elif entry.default is MISSING:
            faults.append(f"{where}{key}: missing; this key has no default.")
    return kind(**values) if len(faults) == before else None


def _checked(value: Any, hint: Any, entry: Field, where: str, faults: list[str]) -> Any:
    """A value of the right type, in range and among the choices."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        faults.append(f"{where}: expected {_WORDS[hint]}, got {value!r}.")
    elif "choices" in entry.metadata and value not in entry.metadata["choices"]:
        faults.append(f"{where}: expected one of {', '.join(entry.metadata['choices'])}, got {value!r}.")
    elif "low" in entry.metadata and not entry.metadata["low"] <= value <= entry.metadata["high"]:
        faults.append(f"{where}: expected {_range(entry)}, got {value}.")
    return value


def _range(entry: Field) -> str:
    low, high = entry.metadata["low"], entry.metadata["high"]
    return f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
