"""Image files of users, decoded in one way: what a file means does not depend on who opens it.

Transparent parts become white, as ComfyUI and every browser's page show them; 16 bits are scaled to 8, not cut off;
telephones' notes on orientation are followed; a palette is looked up. A mask is white where the subject is, or opaque
where it has transparency.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import UserErrors

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})  # of images, where a folder is searched for them
PICTURES = ENDINGS | {
    ".avif",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jp2",
    ".jxl",
    ".tif",
    ".tiff",
}  # not all can be read
LARGEST = 178_956_970  # pixels; twice PIL's warning, where PIL refuses
_ORIENTATION = 0x0112  # a number of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_MANY_STILLS = {"MPO"}  # telephones store a second view of the same moment in it


def open_image(path: str | Path, data: bytes | None = None) -> Image.Image:
    """Decode a whole RGB image, transparent parts white.

    Args:
        path: of the file; errors name it.
        data: its bytes, where they have been read already.

    Raises:
        ValueError: not there, not an image, truncated, animated, or too large.
    """
    image = _decoded(path, data)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def open_picture(path: Path) -> Image.Image:
    """`open_image` for commands.

    Raises:
        UserErrors: what `open_image` raises ValueError for.
    """
    try:
        return open_image(path)
    except ValueError as error:
        raise UserErrors(str(error)) from error


def open_mask(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """Decode a mask: (H, W) bool, where the subject is.

    White is the subject. Where parts are transparent, the opaque rest is the subject, or what is white of it if it is
    both black and white.

    Args, Raises:
        as `open_image`; ValueError as well for a mask without the subject.
    """
    image = _decoded(path, data)
    light = np.asarray(image.convert("RGB" if image.has_transparency_data else "L").convert("L"))
    mask = light > 127
    if image.has_transparency_data:
        opaque = np.asarray(image.convert("RGBA").getchannel("A")) > 127
        if not opaque.all():
            both = (opaque & mask).any() and (opaque & ~mask).any()
            mask = opaque & mask if both else opaque
    if not mask.any():
        brightest = int(light.max())
        hint = f" Its brightest pixel is {brightest} of 255; scale it up." if 0 < brightest else ""
        raise ValueError(f"{path}: the mask is empty; expected white where the subject is.{hint}")
    return mask


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an upright image from its header alone.

    Raises:
        ValueError: as `open_image`, but for what only decoding shows.
    """
    with _opened(path, None) as image:
        width, height = image.size
        return (height, width) if orientation(image) in _LYING else (width, height)


def orientation(image: Image.Image) -> int:
    """Return how a picture lies, EXIF's 1 (upright) to 8; 1 where its notes say nothing, or nothing that can be read.

    PIL's own turning writes all notes anew, and ends in errors of many kinds over a single broken one.
    """
    try:
        value = image.getexif().get(_ORIENTATION)
        return value if value in _TURNS else 1
    except Exception:
        return 1


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image to (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def _opened(path: str | Path, data: bytes | None) -> Image.Image:
    """Open an image by its header; nothing is decoded yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path if data is None else io.BytesIO(data))
        frames = 1 if image.format in _MANY_STILLS else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{path}: expected an image of at most {LARGEST / 1e6:.0f} million pixels, got more ({error}) "
            "Scale it down."
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a whole picture ({error}). Save it again as PNG or JPEG.") from error
    if frames > 1:
        raise ValueError(f"{path}: expected a still picture, got {frames} frames. Save the one you want as PNG.")
    return image


def _decoded(path: str | Path, data: bytes | None) -> Image.Image:
    """Decode, turn upright and bring to 8 bits per channel; the mode may still be any of those."""
    image = _opened(path, data)
    try:
        with warnings.catch_warnings(), image:
            warnings.simplefilter("ignore")  # of broken notes: they do not change a pixel
            image.load()
            if (turn := _TURNS.get(orientation(image))) is not None:
                image = image.transpose(turn)
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise ValueError(f"{path}: not a whole picture ({error}). Save it again as PNG or JPEG.") from error
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image, path)
    return image


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """16-bit grey to 8 bits; PIL's own conversion would cut everything above 255 off."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{path}: expected 8 or 16 bits per channel, got numbers from {values.min():g} to "
            f"{values.max():g}. Save it again as PNG."
        )
    return Image.fromarray((values.astype(np.float32) / 257).round().astype(np.uint8))
