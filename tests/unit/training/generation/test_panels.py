"""Panels are cut at the lines drawn between them, and nowhere else."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from training.generation.panels import cut_panels
from training.generation.request import NotUsable


def noise(rng, width, height=96):
    """A picture of soft patches: neighbours differ little."""
    small = rng.integers(0, 200, (8, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def wide(rng, widths, line):
    parts = []
    for width in widths:
        parts += [np.full((96, line, 3), 255, np.uint8), noise(rng, width)]
    return Image.fromarray(np.concatenate(parts[1:], axis=1))


@pytest.mark.parametrize("seed", range(10))
def test_uneven_panels_come_back_without_their_lines(seed):
    rng = np.random.default_rng(seed)
    widths = [96 + int(rng.integers(-4, 5)) for _ in range(3)]
    picture = wide(rng, widths, 6).filter(ImageFilter.GaussianBlur(0.7))
    panels = cut_panels(picture, 3)
    trim = picture.width // 100  # cut away beside a line: the middle panel has two
    cut = [width - panel.width for panel, width in zip(panels, widths)]
    assert all(sides * trim <= missing <= 12 for sides, missing in zip((1, 2, 1), cut))
    edges = [np.asarray(panel)[:, column].mean() for panel in panels for column in (0, -1)]
    assert max(edges) < 225  # no white line is left


@pytest.mark.parametrize("seed", range(10))
def test_one_continuous_picture_is_not_cut(seed):
    picture = Image.fromarray(noise(np.random.default_rng(seed), 300))
    with pytest.raises(
        NotUsable, match="no line between panels 1 and 2: 0.* of the rows change, needed 0.75"
    ) as caught:
        cut_panels(picture, 3)
    assert caught.value.gate == "panels"


def test_panels_too_narrow_to_be_cut_are_said_so():
    with pytest.raises(NotUsable, match="too narrow"):
        cut_panels(wide(np.random.default_rng(0), (8, 8, 8), 4), 3)
