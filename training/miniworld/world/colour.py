"""Colours in OKLCH, where equal steps look equal, so that no fur hue is louder than another.

Source: B. Ottosson, "A perceptual color space for image processing" (Oklab), 2020.
"""

import math
from functools import lru_cache

Oklch = tuple[float, float, float]


def _gamma(channel: float) -> int:
    linear = min(max(channel, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)


@lru_cache(maxsize=4096)
def css(colour: Oklch) -> str:
    """Write an OKLCH colour as `#rrggbb`.

    Args:
        colour: lightness in [0, 1], chroma in about [0, 0.3], hue in turns [0, 1).
    Returns:
        A CSS hexadecimal colour; channels outside sRGB are clipped.
    """
    lightness, chroma, turns = colour
    a = chroma * math.cos(2 * math.pi * turns)
    b = chroma * math.sin(2 * math.pi * turns)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return f"#{_gamma(red):02x}{_gamma(green):02x}{_gamma(blue):02x}"


def shade(colour: Oklch, lightness: float, chroma: float = 1.0) -> Oklch:
    """Keep the hue, add `lightness` (in OKLCH units) and multiply the chroma by `chroma`."""
    return (min(max(colour[0] + lightness, 0.0), 1.0), colour[1] * chroma, colour[2])
