"""The stable surface as data: what saved graphs, scripts and files of users rely on.

`tests/golden/stable_surface.json` holds it as it was recorded; the tests named `test_stable_surface.py` of each group
read it again from the running code. Something new may be added to the surface; nothing that is in it may change.
Everything is reached by the names of the contract (node ids, `python -m` commands, file names), never by the names of
modules or functions behind them, so the code is free to move.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "stable_surface.json"

# Every command with arguments that reach its parser.
COMMANDS = {
    "training.finetune": ["CONFIG.toml"],
    "training.prepare": ["--convert", "FROM", "TO"],
    "training.subject": ["CONFIG.toml"],
    "training.evaluate": ["PICTURES", "--prompts", "prompts.jsonl"],
    "training.evaluate relationbench": ["relationbench", "--subjects", "photographs", "--out", "prompts.jsonl"],
    "training.evaluate miniworld": ["miniworld", "--relation", "hugging", "--out", "scenes"],
    "training.distill": ["--model", "miniworld", "--out", "local.safetensors"],
    "training.annotate": ["RAW", "OUT"],
    "training.generate": ["OUT", "--relation", "hugging", "--subjects", "fox, bear"],
    "training.miniworld": ["creatures"],
    "tests.check_weights": ["models"],
    "tests.host.run_examples": ["--out", "out"],
}


def pinned(part: str) -> Any:
    """One part of the recorded surface."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))[part]


def lost(recorded: Any, now: Any, where: str = "") -> list[str]:
    """List what was recorded and is not so now; keys and list entries that came since are no loss.

    Args:
        recorded, now: dictionaries, lists and plain values. A list may have grown at its end only.
    """
    if isinstance(recorded, dict) and isinstance(now, dict):
        gone = [f"{where}/{key} is gone" for key in recorded if key not in now]
        return gone + [
            loss for key, value in recorded.items() if key in now for loss in lost(value, now[key], f"{where}/{key}")
        ]
    if isinstance(recorded, list) and isinstance(now, list):
        if len(now) < len(recorded):
            return [f"{where}: expected at least {len(recorded)} entries, got {len(now)}: {now}"]
        return [loss for index, (a, b) in enumerate(zip(recorded, now)) for loss in lost(a, b, f"{where}[{index}]")]
    same = recorded == now and isinstance(recorded, bool) == isinstance(now, bool)  # True is not 1 here
    return [] if same else [f"{where}: was {recorded!r}, is {now!r}"]


# Commands


class _Reached(Exception):
    """Carries the parser out of a command before it acts."""


def run_command(command: str, arguments: list[str], monkeypatch) -> int:
    """`python -m COMMAND ARGUMENTS` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [command, *map(str, arguments)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)  # other tests imported it
        try:
            runpy.run_module(command.split()[0], run_name="__main__")
        except SystemExit as ended:
            return ended.code or 0
    return 0


def parser_of(command: str, monkeypatch) -> argparse.ArgumentParser:
    """The parser that a command builds for its arguments."""

    def stop(self, *_, **__):
        raise _Reached(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    try:
        run_command(command, COMMANDS[command], monkeypatch)
    except _Reached as reached:
        return reached.args[0]
    raise AssertionError(f"{command} parsed nothing")


def options_of(parser: argparse.ArgumentParser) -> dict[str, dict]:
    """Options by flag, positionals by name with their place, verbs by name; help texts may change freely."""
    options: dict[str, dict] = {}
    positionals = 0
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            options |= {f"verb {name}": options_of(verb) for name, verb in action.choices.items()}
            continue
        told: dict[str, Any] = {"takes": type(action).__name__.strip("_"), "default": _plain(action.default)}
        told |= {"nargs": action.nargs} if action.nargs is not None else {}
        told |= {"choices": {str(choice): True for choice in action.choices}} if action.choices else {}
        told |= {} if action.required else {"optional": True}
        if not action.option_strings:
            told["position"], positionals = positionals, positionals + 1
        for name in action.option_strings or [action.dest]:
            options[name] = told
    return options


def _plain(default: Any) -> Any:
    """Defaults as JSON has them; what depends on the machine as one word."""
    if default in ("cpu", "cuda"):
        return "cpu or cuda"
    if isinstance(default, Path):
        return default.as_posix()
    return list(default) if isinstance(default, (tuple, range)) else default


# Files


def files_of(folder: Path) -> dict[str, Any]:
    """Every file under a folder by its name, with the keys inside it; texts that depend on the clock are left out."""
    return {
        path.relative_to(folder).as_posix(): content_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tfevents" not in path.name
    }


def content_of(path: Path) -> Any:
    """What a reader of this file relies on: keys, columns, metadata; `True` where only its presence counts."""
    readers = {".safetensors": _safetensors, ".json": _json, ".jsonl": _json_lines, ".csv": _columns}
    return readers.get(path.suffix, lambda path: True)(path)


def _safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: f"{file.get_slice(key).get_dtype()} {file.get_slice(key).get_shape()}" for key in file.keys()}
        metadata = dict(file.metadata() or {})
    constant = ("format", "kind", "base", "modelspec.sai_model_spec", "modelspec.architecture", "created_with")
    return {
        "tensors": tensors,
        "metadata": {key: value if key in constant else True for key, value in metadata.items()},
    }


def digest_of(content: dict[str, Any]) -> dict[str, Any]:
    """A safetensors file's content, its many tensors as their number and a hash over names, types and shapes."""
    tensors = content["tensors"]
    text = "\n".join(f"{name} {tensors[name]}" for name in sorted(tensors))
    return {**content, "tensors": len(tensors), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _json(path: Path) -> Any:
    return keys_of(json.loads(path.read_text(encoding="utf-8")))


def _json_lines(path: Path) -> Any:
    return keys_of(json.loads(path.read_text(encoding="utf-8").splitlines()[0]))


def _columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def keys_of(value: Any) -> Any:
    """The keys of a JSON value, `True` for every leaf; of a list its first entry's."""
    if isinstance(value, dict):
        return {key: keys_of(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [keys_of(value[0])] if value else []
    return True
