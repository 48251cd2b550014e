"""Sample pictures on disk, which people delete and break: read again for the sheet of a run."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..common.image_files import open_image
from ..common.sheets import FAINT


def opened(file: Path) -> Image.Image | None:
    """Open a sample picture; None where there is none that can be decoded."""
    try:
        return open_image(file)
    except ValueError:
        return None


def shown(file: Path, side: int) -> Image.Image:
    """Resize a sample picture for the sheet; an empty frame where there is none."""
    picture = opened(file) or Image.new("RGB", (1, 1), FAINT)
    return picture.resize((side, side), Image.Resampling.LANCZOS)
