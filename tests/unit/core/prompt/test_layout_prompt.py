"""A scene as FLUX.3's rows and as Ideogram's elements: golden texts, and what validators of the rows accept."""

import json
import re

import pytest
import torch

from core.prompt.layout_prompt import flux3_rows, layout_prompt
from core.scene import WHOLE_PICTURE, Box, Scene, Subject

LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)
HUG = "A cat is hugging a plushie bear."


def scene(*subjects):
    photograph = torch.zeros(1, 3, 10, 20)
    return Scene(tuple(Subject(name, photograph, box, weight, mask) for name, box, weight, mask in subjects))


def test_golden_rows_with_references():
    pair = scene(("cat", LEFT, 1.0, None), ("plushie bear", RIGHT, 1.0, None))
    assert layout_prompt(pair, HUG, "flux3") == HUG + (
        ' [{"id":"cat_1","from":"ref_image_0","src_bbox":[0,0,1000,1000],"tgt_bbox":[0,0,1000,500],"desc":"cat"},'
        '{"id":"bear_1","from":"ref_image_1","src_bbox":[0,0,1000,1000],"tgt_bbox":[0,500,1000,1000],'
        '"desc":"plushie bear"}]'
    )


def test_golden_rows_from_words_alone():
    pair = scene(("cat", LEFT, 0.0, None), ("plushie bear", RIGHT, 0.0, None))
    assert layout_prompt(pair, HUG, "flux3") == HUG + (
        ' [{"id":"cat_1","bbox":[0,0,1000,500],"desc":"cat"},'
        '{"id":"bear_1","bbox":[0,500,1000,1000],"desc":"plushie bear"}]'
    )


def test_a_subject_of_weight_0_is_new_and_takes_no_number_of_a_reference():
    rows = flux3_rows(scene(("cat", LEFT, 0.0, None), ("bear", RIGHT, 1.0, None)))
    assert [(row["from"], row["src_bbox"]) for row in rows] == [(None, None), ("ref_image_0", [0, 0, 1000, 1000])]


def test_the_source_box_is_the_mask():
    mask = torch.zeros(1, 10, 20)
    mask[0, 2:5, 10:18] = 1
    (row,) = flux3_rows(scene(("cat", LEFT, 1.0, mask)))
    assert row["src_bbox"] == [200, 500, 500, 900]


def test_identifiers_are_what_validators_accept_and_differ():
    names = ["bear", "plushie bear", "Robot 7", "\u732b", "caf\u00e9", "R2-D2", "  old  man "]
    rows = flux3_rows(scene(*((name, WHOLE_PICTURE, 1.0, None) for name in names)))
    ids = [row["id"] for row in rows]
    assert all(re.fullmatch(r"[a-z][a-z0-9]*_[0-9]+", each) for each in ids)
    assert len(set(ids)) == len(names) and ids[:3] == ["bear_1", "bear_2", "robot_1"] and ids[3] == "subject_1"


def test_ideogram_reads_what_its_own_nodes_write():
    pair = scene(("cat", LEFT, 1.0, None), ("plushie bear", Box(0.25, 0.1, 1, 1), 0.0, None))
    assert json.loads(layout_prompt(pair, HUG, "ideogram")) == {
        "high_level_description": HUG,
        "compositional_deconstruction": {
            "background": "",
            "elements": [{"type": "obj", "bbox": [0, 0, 1000, 500], "desc": "cat"},
                         {"type": "obj", "bbox": [100, 250, 1000, 1000], "desc": "plushie bear"}],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("subjects", "dialect", "message"),
    [((), "flux3", "scene: expected at least one subject"),
     ((("cat", LEFT, 1.0, None),) * 25, "flux3", "expected at most 24 subjects.*got 25"),
     ((("cat", LEFT, 1.0, None),), "latin", "dialect: expected one of flux3, ideogram, got 'latin'")],
)  # fmt: skip
def test_refusals(subjects, dialect, message):
    with pytest.raises(ValueError, match=message):
        layout_prompt(scene(*subjects), HUG, dialect)
