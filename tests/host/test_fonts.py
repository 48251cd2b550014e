"""Which font writes a name in a preview."""

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def font_on(pack, monkeypatch):
    """The file of the font that a system with these files gives for a text; empty for Pillow's own."""
    module = pack.module("nodes.drawing.fonts")

    def font(text, *files):
        def truetype(name, size):
            if name not in files:
                raise OSError("cannot open resource")
            return name

        fonts = SimpleNamespace(truetype=truetype, load_default=lambda size: "")
        monkeypatch.setattr(module, "ImageFont", fonts)
        module._first_there.cache_clear()
        chosen = module.font_for(text, 11)
        module._first_there.cache_clear()
        return chosen

    return font


@pytest.mark.parametrize("text", ["cat", "un \u00e9l\u00e9phant", "\u0160e\u0159\u00edk \u2013 \u201cfox\u201d", ""])
def test_latin_letters_are_written_by_pillows_own_font(font_on, text):
    assert font_on(text, "msyh.ttc", "arial.ttf", "malgun.ttf") == ""


@pytest.mark.parametrize(
    "text, files, font",
    [
        ("1 \u5c0f\u732b", ["msyh.ttc", "malgun.ttf"], "msyh.ttc"),
        ("\u3053\u3050\u307e", ["meiryo.ttc"], "meiryo.ttc"),
        ("\uace0\uc591\uc774", ["msyh.ttc", "malgun.ttf"], "malgun.ttf"),
        ("\u043a\u043e\u0442", ["msyh.ttc", "DejaVuSans.ttf"], "DejaVuSans.ttf"),
        ("\u5c0f\u732b", ["wqy-zenhei.ttc", "DejaVuSans.ttf"], "wqy-zenhei.ttc"),
        ("\u5c0f\u732b", ["DejaVuSans.ttf"], ""),
    ],
)
def test_other_letters_are_written_by_a_font_of_the_system(font_on, text, files, font):
    assert font_on(text, *files) == font


def test_previews_write_every_name_with_its_own_font(pack, monkeypatch):
    scene, asked = pack.module("core.scene"), []
    layout, table = pack.module("nodes.drawing.layout"), pack.module("nodes.drawing.score_table")
    font_for = pack.module("nodes.drawing.fonts").font_for
    for module in (layout, table):
        monkeypatch.setattr(module, "font_for", lambda text, size: asked.append(text) or font_for(text, size))
    box = scene.Box(0.0, 0.0, 0.5, 1.0)
    subject = scene.Subject("\u5c0f\u732b", torch.rand(1, 3, 8, 8), box, 1.0, None)
    layout.draw_layout(scene.Scene((subject,)), 64, 48)
    table.draw_scores(torch.rand(1, 8, 8, 3), [], ["\u718a"])
    assert {"1 \u5c0f\u732b", "\u718a"} <= set(asked)


def test_a_layout_without_such_a_font_is_drawn_all_the_same(pack, monkeypatch):
    scene, drawing = pack.module("core.scene"), pack.module("nodes.drawing.layout")
    subject = scene.Subject("\u5c0f\u732b", torch.rand(1, 3, 8, 8), scene.Box(0.0, 0.0, 0.5, 1.0), 1.0, None)
    assert drawing.draw_layout(scene.Scene((subject,)), 64, 48).shape == (1, 48, 64, 3)
