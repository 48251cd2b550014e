"""RelationBench's scores on vectors small enough to compute by hand."""

import json

import pytest
import torch

from training.common.stats import bootstrap_mean
from training.evaluation.prompts import Entry
from training.evaluation.report import report_json, summaries, table_text
from training.evaluation.scores import Score, similarity, subject_similarity


def test_similarity_is_the_cosine_times_100_whatever_the_lengths():
    pictures = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    others = torch.tensor([[4.0, 3.0], [0.0, 5.0], [-1.0, 0.0]])
    assert similarity(pictures, others).tolist() == pytest.approx([96.0, 0.0, -100.0])
    assert similarity(10 * pictures, others).tolist() == pytest.approx([96.0, 0.0, -100.0])


def test_several_subjects_are_averaged_over_their_references():
    pictures = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    references = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 3.0]])
    found = subject_similarity(pictures, references, [[0, 1], [2], []])
    assert found[:2] == pytest.approx([50.0, 96.0])
    assert found[2] is None


def summarise(values, cases):
    return Score.of(bootstrap_mean(values, cases))


def test_whole_cases_are_resampled():
    two = summarise([1.0, 3.0], ["a", "b"])  # resampled means are 1, 2 or 3, a quarter of them 1, a quarter 3
    assert (two.mean, two.low, two.high, two.pictures, two.cases) == (2.0, 1.0, 3.0, 2, 2)
    seeds = summarise([1.0, 1.0, 4.0], ["a", "a", "b"])  # seeds of a case are averaged first: 1 and 4
    assert (seeds.mean, seeds.low, seeds.high, seeds.pictures, seeds.cases) == (2.5, 1.0, 4.0, 3, 2)


def test_one_case_has_no_interval_and_none_is_an_error():
    one = summarise([1.0, 3.0], ["a", "a"])
    assert (one.mean, one.low, one.high, one.cases) == (2.0, None, None, 1)
    with pytest.raises(ValueError, match="at least one value"):
        summarise([], [])


def entries(tmp_path):
    reference = tmp_path / "a.png"
    return [
        Entry(1, tmp_path / "1.png", "A cat hugs a dog.", "hugs", (reference, reference)),
        Entry(2, tmp_path / "2.png", "A cat sleeps.", "", (reference,)),
        Entry(3, tmp_path / "3.png", "A house."),
    ]


SCORES = [
    {"CLIP-T": 30.0, "CLIP-R": 20.0, "CLIP-I": 70.0, "DINO": 60.0},
    {"CLIP-T": 20.0, "CLIP-R": None, "CLIP-I": 80.0, "DINO": 50.0},
    {"CLIP-T": 10.0, "CLIP-R": None, "CLIP-I": None, "DINO": None},
]


def test_groups_are_averaged_apart_and_together(tmp_path):
    table = summaries(entries(tmp_path), SCORES)
    means = {group: {metric: score.mean for metric, score in row.items()} for group, row in table.items()}
    assert means == {
        "single": {"CLIP-T": 20.0, "CLIP-I": 80.0, "DINO": 50.0},
        "multi": {"CLIP-T": 30.0, "CLIP-R": 20.0, "CLIP-I": 70.0, "DINO": 60.0},
        "overall": {"CLIP-T": 20.0, "CLIP-R": 20.0, "CLIP-I": 75.0, "DINO": 55.0},
    }


def test_the_table_says_what_it_rests_on(tmp_path):
    text = table_text(summaries(entries(tmp_path), SCORES), {"CLIP": "ours", "DINO": "theirs"})
    assert "| single | 1 | 1 | 20.0 | - | 80.0 | 50.0 |" in text
    assert "| multi | 1 | 1 | 30.0 | 20.0 | 70.0 | 60.0 |" in text
    assert "| overall | 3 | 3 | 20.0 [10.0, 30.0] | 20.0 (1 pictures) | 75.0 [70.0, 80.0] (2 pictures) |" in text
    assert "| *published: DreamRelation, single* |  |  | 30.6 | 21.4 | 77.9 | 63.4 |" in text
    assert "CLIP ours; DINO theirs" in text and "not named" in text


def test_the_miniworlds_numbers_stand_alone(tmp_path):
    scores = [{metric: value for metric, value in row.items() if metric != "DINO"} for row in SCORES]
    text = table_text(summaries(entries(tmp_path), scores), {"CLIP": "miniworld"})
    assert "published" not in text and "| DINO |" not in text and "There is no DINO" in text


def test_json_has_every_picture_and_where_its_predicate_is_from(tmp_path):
    own = entries(tmp_path)
    facts = json.loads(report_json(summaries(own, SCORES), {"CLIP": "ours"}, own, ["hugs", "sleeps", None], SCORES, {}))
    assert [row["predicate_from"] for row in facts["pictures"]] == ["prompts file", "parsed", None]
    assert [row["group"] for row in facts["pictures"]] == ["multi", "single", ""]
    assert facts["pictures"][0]["scores"]["CLIP-R"] == 20.0
    assert facts["groups"]["overall"]["CLIP-T"] == {"mean": 20.0, "low": 10.0, "high": 30.0, "pictures": 3, "cases": 3}
