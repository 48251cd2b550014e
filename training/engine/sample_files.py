"""A run's sample pictures on disk and on one growing sheet: the same seeds before training and after so many steps.

People delete and break such files: they are read again for the sheet, and drawn again where they must be there.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from core.user_files import read_json_object

from ..common.atomic_io import write_text
from ..common.image_files import open_image
from ..common.sheets import FAINT, sample_sheet, save_picture, to_picture
from ..config import Config, FluxConfig
from ..config.subject import SubjectConfig
from .run_dir import RunDir

_WITHOUT, _STEP = "without", re.compile(r"step-(\d{6,})-\d+\.png")
_SETTINGS = "settings.json"  # what the pictures before training were drawn with


class SampleSheet(ABC):
    """Draws pictures of fixed seeds into a run's folder.

    Args:
        prompts: of the pictures, for the sheet.
        load_vae: called for every round; the VAE is not kept.
        config: of the run.
        folder: of the run.
    """

    title_without = "without LoRA"  # of the sheet's first column

    def __init__(
        self,
        prompts: list[str],
        load_vae: Callable[[], nn.Module],
        config: Config | FluxConfig | SubjectConfig,
        folder: RunDir,
    ) -> None:
        self.prompts, self.load_vae, self.config, self.folder = prompts, load_vae, config, folder

    def draw_without(self) -> None:
        """Draw the untouched base once, and again where one of its pictures is gone, broken or made otherwise."""
        facts = self.config.samples.model_dump(exclude={"every", "count"})
        if self._settings_without() == facts and all(opened(file) for file in self._files(_WITHOUT)):
            return
        self._switch(False)
        try:
            self._draw(_WITHOUT)
        finally:
            self._switch(True)
        write_text(self.folder.samples / _SETTINGS, json.dumps(facts, indent=1) + "\n")

    def draw(self, step: int) -> None:
        """Draw the model as it is after ``step`` steps; the sheet grows by a column.

        The sheet shows what is there of earlier steps: a run may have gone on with other sample settings, and people
        delete pictures.
        """
        self._draw(f"step-{step:06d}")
        matches = filter(None, (_STEP.fullmatch(path.name) for path in self.folder.samples.iterdir()))
        steps = sorted({int(match[1]) for match in matches if int(match[1]) <= step})
        names = {self.title_without: _WITHOUT} | {f"step {done}": f"step-{done:06d}" for done in steps}
        side = min(max(self.config.data.image_px, 256), 384)  # large enough to look at, small enough for a sheet
        columns = {title: [_resized(file, side) for file in self._files(name)] for title, name in names.items()}
        save_picture(sample_sheet(columns, self.prompts), self.folder.path / "samples.png")

    def _settings_without(self) -> dict | None:
        """Read the sample settings that the pictures before training were drawn with."""
        try:
            return read_json_object(self.folder.samples / _SETTINGS)
        except ValueError:
            return None

    def _files(self, name: str) -> list[Path]:
        return [self.folder.samples / f"{name}-{i}.png" for i in range(len(self.prompts))]

    def _draw(self, name: str) -> None:
        for path, pixels in zip(self._files(name), self._render()):
            save_picture(to_picture(pixels), path)

    @abstractmethod
    def _switch(self, enabled: bool) -> None:
        """Turn what is trained on or off."""

    @abstractmethod
    def _render(self) -> Tensor:
        """Draw every picture as the model is now, (N, 3, H, W) in [0, 1]."""


def opened(file: Path) -> Image.Image | None:
    """Open a sample picture; None where there is none that can be decoded."""
    try:
        return open_image(file)
    except ValueError:
        return None


def _resized(file: Path, side: int) -> Image.Image:
    """Open a sample picture for the sheet; an empty frame where there is none."""
    picture = opened(file) or Image.new("RGB", (1, 1), FAINT)
    return picture.resize((side, side), Image.Resampling.LANCZOS)
