"""Own rows beside the paper's: the table that belongs to the prompts' set, and none where nothing is comparable."""

import pytest

from training.evaluation.folders import report_of
from training.evaluation.measurement import Measured
from training.evaluation.prompts import Entry
from training.evaluation.relationbench import published_rows
from training.evaluation.reproduce.rows import reproduction_text, rows_facts

SCORES = {"CLIP-T": 31.0, "CLIP-R": 19.0, "CLIP-I": 79.0, "DINO": 68.0}


def measured(tmp_path, *sets, references=1, **more):
    photograph = tmp_path / "a.png"
    entries = [
        Entry(line, tmp_path / f"{line}.png", "A cat.", "", (photograph,) * references, set=name)
        for line, name in enumerate(sets, 1)
    ]
    own = Measured(entries, [None] * len(entries), [SCORES] * len(entries), **more)
    return {"ms-diffusion": own, "relate": own}


def rows_of(tmp_path, *sets, world="sdxl", references=1):
    done = {"ms-diffusion": True, "relate": True}
    return reproduction_text(measured(tmp_path, *sets, references=references), done, world)


def test_relationbench_stands_beside_table_1(tmp_path):
    text = rows_of(tmp_path, "")
    assert "| *published: MS-Diffusion* | single | 26.5 | 18.8 | 78.7 | 64.5 |" in text
    assert "| *published: DreamRelation* | single | 30.6 | 21.4 | 77.9 | 63.4 |" in text


def test_dreambench_stands_beside_table_2(tmp_path):
    text = rows_of(tmp_path, "dreambench", "dreambench")
    assert "| *published: MS-Diffusion* | single | 31.5 | - | 79.3 | 68.2 |" in text  # it has no CLIP-R
    assert "| *difference* | single | -0.5 | - | -0.3 | -0.2 |" in text
    assert "is within 1 point of the published one" in text and "arXiv:2410.23280, table 2" in text


def test_pairs_of_customconcept101_stand_beside_table_3(tmp_path):
    text = rows_of(tmp_path, "customconcept101", references=2)
    assert "| *published: DreamRelation* | multi | 29.4 | - | 71.4 | 52.3 |" in text
    assert "differs from the published one" in text
    assert "published" not in rows_of(tmp_path, "customconcept101").replace("No published row", "")  # one subject


@pytest.mark.parametrize("sets", [("dreambench", ""), ("xversebench",), ("dreambench", "customconcept101")])
def test_other_sets_and_mixtures_stand_beside_nothing(tmp_path, sets):
    assert published_rows(sets) == ({}, "")
    text = rows_of(tmp_path, *sets)
    assert "*published" not in text and "No published row is comparable with these pictures" in text


def test_every_method_that_was_counted_exactly_is_reported(tmp_path):
    own = measured(tmp_path, "", "", encoders={"CLIP": "small"})
    text, facts = report_of(own, None, {name: (f"\nexact of {name}\n", {"relation": name}) for name in own})
    assert text.index("exact of ms-diffusion") < text.index("**relate, exactly**\n\nexact of relate")
    assert facts["exact"] == {"relation": "ms-diffusion"}
    assert facts["against"]["relate"]["exact"] == {"relation": "relate"}
    text, facts = report_of(own, None, {})
    assert "exactly" not in text and "exact" not in facts and "exact" not in facts["against"]["relate"]


def test_the_miniworld_stands_beside_nothing(tmp_path):
    assert "*published" not in rows_of(tmp_path, "", world="miniworld")


def test_every_measure_of_every_method_is_in_the_json(tmp_path):
    own = measured(tmp_path, "")
    own["relate"].rows[0] = {**SCORES, "face_multi_id": 0.5, "grade_relation": 7.0}
    facts = rows_facts(own, {"ms-diffusion": True, "relate": False})["relate"]
    assert not facts["complete"] and facts["groups"]["single"]["face_multi_id"]["value"] == 0.5
    assert facts["groups"]["overall"]["grade_relation"]["value"] == 7.0
