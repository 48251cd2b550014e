"""Ask a judge, and cache its answers by the contents of picture, question and judge."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image, ImageOps

from ...common.atomic_io import write_text
from ...common.image_files import open_picture


class CannotAnswer(Exception):
    """A judge that knows only some kinds of questions was asked another; the answer is missing, not No."""


class Judge(Protocol):
    """A model that answers questions about pictures.

    Attributes:
        facts: name, revision, precision and versions: everything that an answer depends on.
    """

    facts: Mapping[str, Any]

    def yes_no(self, images: Sequence[Image.Image], question: str) -> tuple[float, float]:
        """Return the log-probabilities of "Yes" and "No"."""
        ...

    def answer(self, images: Sequence[Image.Image], text: str, longest: int = 256) -> str:
        """Return the greedy answer."""
        ...


class Answers:
    """A judge with a cache on disk: one JSON object per line, appended with each answer.

    Args:
        judge: the model.
        path: of the cache; None caches within this run only.
    """

    def __init__(self, judge: Judge, path: Path | None = None) -> None:
        self.judge, self.path = judge, path
        self.asked = 0
        self.identity = json.dumps(judge.facts, sort_keys=True, default=str)
        self.memory: dict[str, Any] = {}
        self._pictures: dict[Path, str] = {}
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8")
            if text and not text.endswith("\n"):  # nothing may be appended to what a kill has cut off
                write_text(path, text + "\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                    self.memory[entry["key"]] = entry["answer"]
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was killed while it wrote; its question is asked again

    def yes(self, picture: Path, question: str, mirrored: bool = False) -> tuple[float, float] | None:
        """Return the probability of Yes against No, and how much of all probability these two words hold.

        Returns:
            (p, mass), or None if the judge cannot answer such a question.
        """

        def ask() -> list[float] | None:
            image = open_picture(picture)
            try:
                return list(self.judge.yes_no([ImageOps.mirror(image) if mirrored else image], question))
            except CannotAnswer:
                return None

        logs = self._once(("yes", mirrored, question), [picture], ask)
        if logs is None:
            return None
        yes, no = logs
        return 1 / (1 + math.exp(min(700.0, no - yes))), min(1.0, math.exp(yes) + math.exp(no))

    def text(self, pictures: Sequence[Path], text: str) -> str:
        """Return the judge's greedy answer about some pictures in order."""
        return self._once(
            ("text", text), pictures, lambda: self.judge.answer([open_picture(picture) for picture in pictures], text)
        )

    def _once(self, what: tuple, pictures: Sequence[Path], ask: Any) -> Any:
        """Return an answer from memory, or from the judge."""
        parts = [self.identity, json.dumps(what), *(self._hash(picture) for picture in pictures)]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        if key not in self.memory:
            self.memory[key] = ask()
            self.asked += 1
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "answer": self.memory[key], "what": what}) + "\n")
        return self.memory[key]

    def _hash(self, picture: Path) -> str:
        if picture not in self._pictures:
            self._pictures[picture] = hashlib.sha256(picture.read_bytes()).hexdigest()
        return self._pictures[picture]
