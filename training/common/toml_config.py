"""TOML to checked models: unknown, missing, mistyped and out-of-range keys, all of them in one report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import tomllib
from pydantic import BaseModel, ValidationError

from .errors import UserErrors
from .schema import Checked, sentences

Settings = TypeVar("Settings", bound=Checked)


class ConfigFaults(UserErrors):
    """What is wrong with a config.

    Attributes:
        tables: those that are right, by name: what they name can be looked at all the same.
        settings: all of it as it was read, right or wrong.
    """

    def __init__(self, messages: Iterable[str], tables: dict[str, Checked], settings: dict[str, Any]) -> None:
        super().__init__(messages)
        self.tables, self.settings = tables, settings


def read_settings(
    kind: type[Settings],
    path: str | Path,
    text: str,
    overrides: Sequence[str],
    across: Callable[[dict[str, Any]], list[str]],
) -> Settings:
    """Validate a TOML file.

    Args:
        kind: the model of the file; its tables are models as well.
        path: of the file, for messages.
        text: what is in it.
        overrides: ``table.key=value`` from the command line, values as in TOML (a bare word is a string).
        across: finds what is wrong between tables.

    Raises:
        ConfigFaults: not TOML; unknown, missing, mistyped, out of range or contradictory keys, all of them.
    """
    # 1. the file, with the command line over it
    settings = _parse(path, text)
    faults: list[str] = []
    for override in overrides:
        _apply(override, settings, faults)
    tables = {
        name: field.annotation
        for name, field in kind.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    for name in tables:  # a table left out: its missing keys are named, not itself
        settings.setdefault(name, {})
    # 2. every table against its model, then what is between them
    config = None
    try:
        config = kind.model_validate(settings)
    except ValidationError as error:
        faults += [f"{'.'.join(map(str, place))}: {sentence}" for place, sentence in sentences(error, kind)]
    faults += across(settings)
    if faults or config is None:
        raise ConfigFaults((f"{path}: {fault}" for fault in faults), _right(tables, settings), settings)
    return config


def key_of(text: str, overrides: Sequence[str], key: str) -> Any:
    """Read one top-level key of a TOML file, overrides included; None where there is none, or no TOML."""
    settings: dict[str, Any] = {}
    with suppress(tomllib.TOMLDecodeError, RecursionError):
        settings = tomllib.loads(text)
    for override in overrides:
        if override.partition("=")[0].strip() == key:
            _apply(override, settings, [])
    return settings.get(key)


def _right(tables: dict[str, type[Checked]], settings: dict[str, Any]) -> dict[str, Checked]:
    """Return the tables that have no fault."""
    right = {}
    for name, kind in tables.items():
        with suppress(ValidationError):
            right[name] = kind.model_validate(settings[name])
    return right


def _parse(path: str | Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = re.search(r"at line (\d+)", str(error))
        line = text.split("\n")[int(where[1]) - 1] if where else ""
        hint = (
            ' In "double quotes" a backslash begins an escape: write Windows paths with / or in '
            "'single quotes', e.g. 'C:\\models\\base'."
            if "\\" in line
            else ""
        )
        raise ConfigFaults([f"{path}: not TOML: {error}.{hint}"], {}, {}) from error


def _apply(override: str, settings: dict, faults: list[str]) -> None:
    name, equals, text = override.partition("=")
    *tables, key = (part.strip() for part in name.split("."))
    if not equals or not key:
        faults.append(f"--set {override}: expected table.key=value, e.g. --set train.steps=200.")
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    for table in tables:
        settings = settings.setdefault(table, {})
        if not isinstance(settings, dict):
            faults.append(f"--set {override}: '{table}' is a value, not a table.")
            return
    settings[key] = value
