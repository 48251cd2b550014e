"""Cache of drawn pictures, each named by the hash of all that it depends on: none is drawn twice, none is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from PIL import PngImagePlugin

from ..common.atomic_io import atomic_write
from ..common.image_files import open_image
from .request import Engine, Request

PROMPT_KEY = "relate_prompt"  # text chunk of the file


class PictureStore:
    """A folder of drawn pictures.

    Args:
        folder: created with the first picture.
        engine: draws missing pictures.
        say: receives one line about every picture drawn.

    Attributes:
        drawn: pictures drawn by this process.
        kept: pictures requested that an earlier run had drawn.
        seconds: spent on drawing.
    """

    def __init__(self, folder: Path, engine: Engine, say: Callable[[str], None]) -> None:
        self.folder, self.engine, self.say = folder, engine, say
        self.drawn = self.kept = 0
        self.seconds = 0.0

    def picture(self, request: Request) -> Path:
        """Return the file of a request, drawn if it is missing.

        Raises:
            ComfyUIError, ValueError: it cannot be drawn, or the answer is no picture.
        """
        file = self.folder / f"{self.engine.key(request)}.png"
        if file.is_file():
            self.kept += 1
            return file
        began = time.monotonic()
        data = self.engine.draw(request)
        picture = open_image(f"{request.what}, as drawn", data)
        facts = PngImagePlugin.PngInfo()
        facts.add_itxt(PROMPT_KEY, request.prompt)
        atomic_write(file, lambda path: picture.save(path, format="PNG", pnginfo=facts))
        took = time.monotonic() - began
        self.drawn, self.seconds = self.drawn + 1, self.seconds + took
        self.say(f"drew {request.what} in {took:.1f} s")
        return file
