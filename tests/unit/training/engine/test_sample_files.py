"""A run's sample pictures: what is drawn, what is drawn again, and that a failure leaves the LoRA on."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from training.config import SamplesConfig
from training.engine.sample_files import SampleSheet


class Sheet(SampleSheet):
    """Draws white while its model is on, black while it is off, and remembers which."""

    def __init__(self, folder, **settings):
        config = SimpleNamespace(samples=SamplesConfig(**settings), data=SimpleNamespace(image_px=64))
        run = SimpleNamespace(path=folder, samples=folder / "samples")
        super().__init__(["a", "b"], lambda: None, config, run)
        self.enabled, self.rounds, self.error = True, [], None

    def _switch(self, enabled):
        self.enabled = enabled

    def _render(self):
        if self.error:
            raise self.error
        self.rounds.append(self.enabled)
        return torch.full((2, 3, 8, 8), float(self.enabled))


def test_the_base_is_drawn_once_and_again_where_it_must_be(tmp_path):
    sheet = Sheet(tmp_path)
    sheet.draw_without()
    sheet.draw_without()
    assert sheet.rounds == [False] and sheet.enabled
    assert Image.open(tmp_path / "samples" / "without-1.png").getextrema() == ((0, 0),) * 3
    (tmp_path / "samples" / "without-1.png").write_bytes(b"half a file")
    sheet.draw_without()
    assert sheet.rounds == [False, False]
    same, other = Sheet(tmp_path, every=7, count=1), Sheet(tmp_path, seed=7)
    same.draw_without()
    other.draw_without()
    assert same.rounds == [] and other.rounds == [False]


def test_a_base_that_cannot_be_drawn_leaves_the_lora_on_and_is_drawn_later(tmp_path):
    sheet = Sheet(tmp_path)
    sheet.error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError):
        sheet.draw_without()
    assert sheet.enabled
    sheet.error = None
    sheet.draw_without()
    assert sheet.rounds == [False]


def test_the_sheet_has_a_column_for_the_base_and_for_every_step_so_far(tmp_path):
    sheet, widths = Sheet(tmp_path), []
    sheet.draw_without()
    for step in (20, 1_000_000, 10):  # the last as after --resume from an earlier checkpoint
        sheet.draw(step)
        widths.append(Image.open(tmp_path / "samples.png").width)
    column = widths[1] - widths[0]
    assert column >= 256 and widths == [2 * column + 8, 3 * column + 8, 2 * column + 8]
    assert (tmp_path / "samples" / "step-1000000-1.png").is_file()


def test_a_picture_that_was_deleted_is_an_empty_frame(tmp_path):
    sheet = Sheet(tmp_path)
    sheet.draw_without()
    sheet.draw(1)
    (tmp_path / "samples" / "without-0.png").unlink()
    sheet.draw(2)
    assert Image.open(tmp_path / "samples.png").getpixel((8 + 128, 26 + 128)) not in ((0, 0, 0), (255, 255, 255))


def test_a_family_without_a_way_to_draw_is_refused(tmp_path):
    """Before a run begins, not at its first sample."""
    with pytest.raises(TypeError, match="_render"):
        SampleSheet(["a"], lambda: None, None, None)
