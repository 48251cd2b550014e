"""One small file for each engine: from photographs and a prompt to CONDITIONING and latent, as it is wired today."""

from __future__ import annotations

from collections.abc import Callable

from . import boogu, flux2, joyimage, kontext, krea2, longcat, mage, omnigen2, qwen_edit, z_image_omni
from .common import Request, Wiring

WIRE: dict[str, Callable[[Request], Wiring]] = {
    "boogu": boogu.wire,
    "flux2": flux2.wire,
    "joyimage": joyimage.wire,
    "kontext": kontext.wire,
    "krea2": krea2.wire,
    "longcat": longcat.wire,
    "mage": mage.wire,
    "omnigen2": omnigen2.wire,
    "qwen_edit": qwen_edit.wire,
    "qwen_edit_first": qwen_edit.wire_first,
    "z_image_omni": z_image_omni.wire,
}

__all__ = ["WIRE", "Request", "Wiring"]
