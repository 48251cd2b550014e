"""One picture to be drawn, and what an engine must offer to draw it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from .scenes import Scene

TEXT, EDIT, PANELS = "text", "edit", "panels"  # roles; each has a template of its own


class NotUsable(ValueError):
    """A picture was drawn and cannot be used; the attempt is over.

    Attributes:
        gate: short name of what it failed, for the yield.
    """

    def __init__(self, gate: str, message: str) -> None:
        self.gate = gate
        super().__init__(message)


@dataclass(frozen=True)
class Request:
    """One picture.

    Attributes:
        role: TEXT (from words), EDIT (from words and pictures) or PANELS (several pictures in one, from words).
        prompt, negative: the words; an empty negative leaves the engine's own.
        width, height: pixels.
        seed: of its noise.
        scene: the attempt it belongs to.
        subject: the one it shows alone, an index into the scene's names; None: the relation.
        images: pictures it is made from.
    """

    role: str
    prompt: str
    negative: str
    width: int
    height: int
    seed: int
    scene: Scene
    subject: int | None = None
    images: tuple[Path, ...] = ()

    @property
    def what(self) -> str:
        """Name for messages: "03-2 wolf"."""
        picture = "target" if self.subject is None else self.scene.names[self.subject]
        return f"{self.scene.folder} {self.role if self.role == PANELS else picture}"


class Engine(Protocol):
    """Draws requests.

    Attributes:
        size: pixels along a side where the user names none.
    """

    size: int

    @property
    def facts(self) -> Mapping[str, Any]:
        """For the files: `engine`, `template_sha256`, `models` (each {"file", "licence"}), `licence`."""
        ...

    def check(self, roles: Mapping[str, int], relation: str, groups: list[tuple[str, ...]]) -> None:
        """Report everything that keeps it from drawing, before anything is drawn.

        Args:
            roles: those that are needed, with the largest number of pictures that a request brings along.
            relation, groups: of the order.

        Raises:
            UserErrors: all of it.
        """
        ...

    def key(self, request: Request) -> str:
        """Hash everything that the picture depends on, hexadecimal."""
        ...

    def draw(self, request: Request) -> bytes:
        """Draw the picture: an image file's bytes.

        Raises:
            ComfyUIError, ValueError: it cannot be drawn.
        """
        ...

    def caption(self, scene: Scene) -> str:
        """Return the scene's sentence where the engine has a truer one than the wording; else nothing."""
        ...


def request_hash(request: Request, **engine: Any) -> str:
    """Hash a request, the bytes of its pictures, and facts about the engine."""
    facts = {**asdict(request), "images": [file_sha256(path) for path in request.images], "engine": engine}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
