"""Users' files, checked field by field: pydantic models whose faults read as the rest of ours do.

Every field of a `Checked` model has its type, range, unit and meaning beside it. Nothing is coerced: "3" is no number
and 1 is not true. All faults of a value are reported at once: what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .errors import first_few

NAME_BYTES, PATH_BYTES = 255, 4000  # what file systems of today take; a few bytes are left for temporary names
_SHOWN = 80  # letters of a wrong value
_MOST = 3  # faults of one key that are spelled out
_LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "finite_number": "a finite number",
}


class Checked(BaseModel):
    """A group of settings or one entry of a file: strict types, unknown keys refused, unchangeable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def contradictions(self) -> list[tuple[str, str]]:
        """Keys that are right alone and wrong together, each with a sentence."""
        return []

    @model_validator(mode="after")
    def _without_contradictions(self) -> Checked:
        if faults := self.contradictions():
            raise PydanticCustomError("contradictions", "contradictions", {"faults": faults})
        return self


def sentences(error: ValidationError, kind: type[BaseModel]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the faults of a value as (place, sentence); a place is keys and indices from 0, outermost first."""
    for fault in error.errors(include_url=False):
        place, error_type, got = fault["loc"], fault["type"], shown(fault["input"])
        context = fault.get("ctx", {})
        if error_type == "contradictions":
            yield from (((*place, key), sentence) for key, sentence in context["faults"])
        elif error_type == "missing":
            yield place, "missing; this key has no default."
        elif error_type == "extra_forbidden":
            yield place, f"unknown key. {did_you_mean(str(place[-1]), _keys_of(kind, place[:-1]))}"
        elif error_type in ("model_type", "model_attributes_type"):
            yield place, f"expected a table [{'.'.join(map(str, place))}], got {got}."
        elif error_type == "literal_error":
            choices = ", ".join(map(str, get_args(_annotation(kind, place))))
            yield place, f"expected one of {choices}, got {got}."
        elif error_type in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
            yield place, f"expected {_range(kind, place, context)}, got {got}."
        elif error_type == "value_error":
            yield place, str(context["error"])
        elif error_type in ("empty", "string_too_short", "too_short"):
            yield place, f"expected {_meaning(kind, place)}, got {got}."
        elif error_type == "too_long":
            yield place, f"expected at most {context['max_length']}, got {context['actual_length']}."
        else:
            yield place, f"expected {_KINDS.get(error_type, fault['msg'])}, got {got}."


def checked_entry(kind: type[Checked], entry: Any, where: str, faults: list[str]) -> Any:
    """Return an entry of a kind, or None with its faults added."""
    if not isinstance(entry, dict):
        faults.append(f"{where}: expected a JSON object, got {json.dumps(entry)[:80]}.")
        return None
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        faults += entry_faults(error, kind, where)
        return None


def entry_faults(error: ValidationError, kind: type[BaseModel], where: str) -> list[str]:
    """Return the faults of a JSON object, at most a few of each key."""
    by_key: dict[Any, list[str]] = {}
    for place, sentence in sentences(error, kind):
        key, *inner = place or ("",)
        numbers = ".".join(str(index + 1) if isinstance(index, int) else index for index in inner)
        whose = f"'{key}'{', number ' if inner else ''}{numbers}"
        text = f"{whose}: {re.sub(r'a table .*], got', 'an object, got', sentence).replace('a string', 'a text')}"
        if sentence.startswith("missing;"):
            text = f"{whose} is missing; expected {_meaning(kind, place)}."
        by_key.setdefault(key, []).append(f"{where}: {text}")
    return [fault for key, of_key in by_key.items() for fault in first_few(of_key, _MOST, f"{where}: '{key}': ")]


def shown(value: Any) -> str:
    """Return a wrong value, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def did_you_mean(key: str, valid: list[str]) -> str:
    """Return the closest known key, or all of them."""
    close = difflib.get_close_matches(key.rpartition(".")[2], [name.rpartition(".")[2] for name in valid], 1)
    whole = next((name for name in valid if close and name.rpartition(".")[2] == close[0]), "")
    return f"Did you mean {whole}?" if whole else f"Known here: {', '.join(valid)}."


def _model_at(kind: type[BaseModel], place: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model that a place leads to, through lists of models too; None where it leads to a value."""
    for key in (key for key in place if isinstance(key, str)):
        field = kind.model_fields.get(key)
        kind = field.annotation if field else None
        kind = get_args(kind)[0] if get_origin(kind) is list else kind
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
    return kind


def _field(kind: type[BaseModel], place: tuple[str | int, ...]) -> Any:
    """Return the field a place lies in: the last key that names one."""
    keys = [key for key in place if isinstance(key, str)]
    model = _model_at(kind, tuple(keys[:-1]))
    return model.model_fields.get(keys[-1]) if model else None


def _annotation(kind: type[BaseModel], place: tuple[str | int, ...]) -> Any:
    annotation = _field(kind, place).annotation
    options = (annotation,) if get_origin(annotation) is Literal else get_args(annotation)
    return next(kind for kind in options if get_args(kind))


def _keys_of(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    model = _model_at(kind, place)
    return [".".join((*map(str, place), name)) for name in model.model_fields] if model else []


def _meaning(kind: type[BaseModel], place: tuple[str | int, ...]) -> str:
    field = _field(kind, place)
    return field.description if field is not None and field.description else "something"


def _range(kind: type[BaseModel], place: tuple[str | int, ...], context: dict[str, Any]) -> str:
    limits = dict(context)
    for entry in getattr(_field(kind, place), "metadata", ()):
        limits |= {name: getattr(entry, name) for name in _LIMITS if getattr(entry, name, None) is not None}
    if {"ge", "le"} <= limits.keys():
        return f"{limits['ge']:g} to {limits['le']:g}"
    return " and ".join(f"{words} {limits[name]:g}" for name, words in _LIMITS.items() if name in limits)


def check_path(text: str) -> str:
    """Return a path as users write it, with ``~`` expanded.

    Raises:
        ValueError: it cannot be the path of anything, whatever is on the disk.
    """
    odd = re.search(r"[\x00-\x1f\x7f]", text)
    if odd:
        raise ValueError(
            f'expected a path, got {shown(text)} with a control character in it. In "double quotes" a '
            "backslash begins an escape, \\n a new line: write the path with / or in 'single quotes'."
        )
    try:
        whole = os.path.expanduser(text) if text.startswith("~") else text
    except RuntimeError as error:
        raise ValueError(f"{shown(text)}: {error}.") from error
    long = next((part for part in Path(whole).parts if len(os.fsencode(part)) > NAME_BYTES), "")
    if long or len(os.fsencode(whole)) > PATH_BYTES:
        what = f"a name of {len(os.fsencode(long))} bytes" if long else f"{len(os.fsencode(whole))} bytes"
        most = NAME_BYTES if long else PATH_BYTES
        raise ValueError(
            f"expected a path that file systems take, got {what} ({shown(text)}); at most {most} are "
            "possible. Choose a shorter one."
        )
    return whole


def check_file_name(name: str) -> str:
    """Return a name for a file that stays in its folder, on every system.

    Raises:
        ValueError: separators, reserved letters or names, too long.
    """
    odd = sorted(set(re.findall(r'[\x00-\x1f\x7f<>:"/\\|?*]', name)))
    if odd:
        raise ValueError(
            f"expected a file's name without its folder, got {shown(name)} with "
            f"{' '.join(map(repr, odd))} in it. Use letters, digits, - and _."
        )
    if name and (
        not name.strip(". ")
        or name != name.rstrip(". ")
        or re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name)
    ):
        raise ValueError(f"{shown(name)} is no name that every system takes. Use letters, digits, - and _.")
    if len(os.fsencode(name)) > NAME_BYTES - 75:
        raise ValueError(
            f"expected a file name of at most {NAME_BYTES - 75} bytes, got {len(os.fsencode(name))} "
            f"({shown(name)}). Choose a shorter one."
        )
    return name


def _words(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "empty")
    return text


PathText = Annotated[str, AfterValidator(check_path)]  # may be empty: none
NeededPath = Annotated[str, Field(min_length=1), AfterValidator(check_path)]
FileName = Annotated[str, AfterValidator(check_file_name)]
Words = Annotated[str, AfterValidator(_words)]  # text that says something
