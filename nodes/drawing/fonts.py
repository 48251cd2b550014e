"""Fonts for the names in previews: Pillow's own has Latin letters alone, so others are written by a system's font.

File names are those of Windows, macOS and the common Linux packages.
"""

from __future__ import annotations

import re
from functools import lru_cache

from PIL import ImageFont

_KOREAN = ("malgun.ttf", "AppleSDGothicNeo.ttc", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "NanumGothic.ttf")
_CHINESE_JAPANESE = (
    "msyh.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "meiryo.ttc",
    "simhei.ttf",
    "Arial Unicode.ttf",
)
_OTHERS = ("segoeui.ttf", "Arial Unicode.ttf", "Arial.ttf", "arial.ttf", "DejaVuSans.ttf", "NotoSans-Regular.ttf")
_SCRIPTS = (  # the first that a text has letters of
    (re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]"), _KOREAN),
    (re.compile("[\u2e80-\u30ff\u31f0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"), _CHINESE_JAPANESE),
    (re.compile("[^\u0000-\u024f\u2000-\u206f]"), _OTHERS),
)


def font_for(text: str, size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Open a font that can write a text: Pillow's own where it can, or where the system has none.

    Args:
        text: to be written.
        size: in pixels.
    """
    for script, names in _SCRIPTS:
        if script.search(text):
            return _first_there(names, size) or ImageFont.load_default(size=size)
    return ImageFont.load_default(size=size)


@lru_cache(maxsize=64)  # a font that is not there is looked for in every folder of fonts
def _first_there(names: tuple[str, ...], size: int) -> ImageFont.FreeTypeFont | None:
    for name in names:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue  # another system's
    return None
