"""RelationBench's templates, and its prompts file for one's own subjects."""

import json
from collections import Counter

import pytest
from PIL import Image

from training.common.errors import UserErrors
from training.data.prompt_spans import find_phrase
from training.evaluate import main
from training.evaluation.prompts import read_prompts
from training.evaluation.relationbench import find_subjects, relationbench

SUBJECTS = ("cat2.png", "plushie_bear.jpg", "dog/00.png", "dog/01.png", "toy_gnome.png", "cat1.png", "fox-1.tif")


@pytest.fixture
def subjects(tmp_path):
    for name in SUBJECTS:
        path = tmp_path / "subjects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "subjects" / "notes.txt").write_text("not a subject")
    return tmp_path / "subjects"


def test_14_single_and_11_multi_templates_say_their_predicate():
    templates = relationbench()["templates"]
    assert [template["prompt"].count("{ }") for template in templates] == [1] * 14 + [2] * 11
    assert all(find_phrase(template["prompt"], template["relation"]) for template in templates)
    assert all("{" not in template["relation"] for template in templates)


def test_names_come_from_files_and_folders(subjects):
    found = [(name, path.relative_to(subjects).as_posix()) for name, path in find_subjects(subjects)]
    assert found == [
        ("cat", "cat1.png"),
        ("cat", "cat2.png"),
        ("dog", "dog/00.png"),
        ("fox", "fox-1.tif"),
        ("plushie bear", "plushie_bear.jpg"),
        ("toy gnome", "toy_gnome.png"),
    ]
    with pytest.raises(UserErrors, match="plushie_bear.jpg; found none"):
        find_subjects(subjects / "dog" / "nowhere")


def test_the_file_has_100_cases_with_every_subject_in_turn(subjects, capsys):
    file = subjects.parent / "prompts.jsonl"
    assert main(["relationbench", "--subjects", str(subjects), "--out", str(file), "--seeds", "2"]) == 0
    assert "scale 0.6" in capsys.readouterr().out
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 200 and [line["seed"] for line in lines[:4]] == [0, 1, 0, 1]
    assert set(Counter(line["template"] for line in lines).values()) == {8}
    assert len({line["picture"] for line in lines}) == 200
    assert len({(line["prompt"], *line["references"]) for line in lines}) == 100
    single = Counter(line["references"][0] for line in lines if line["template"] <= 14)
    assert max(single.values()) - min(single.values()) <= 2
    assert all(len(set(line["names"])) == len(line["names"]) for line in lines)
    chess = next(line for line in lines if line["template"] == 15)
    first, second = chess["names"]
    assert chess["prompt"] == f"A {first} is playing chess with a {second} in a quiet park under the shade of a tree."
    for line in lines:
        path = file.parent / "pictures" / line["picture"]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    entries = read_prompts(file, file.parent / "pictures")
    assert Counter(entry.group for entry in entries) == {"single": 112, "multi": 88}
    assert len({entry.case for entry in entries}) == 100


def test_nothing_is_overwritten_and_one_subject_has_single_cases_only(subjects, capsys):
    file = subjects.parent / "one.jsonl"
    assert main(["relationbench", "--subjects", str(subjects / "dog"), "--out", str(file)]) == 2  # "00" is no name
    (subjects / "dog" / "corgi.png").write_bytes((subjects / "dog" / "00.png").read_bytes())
    assert main(["relationbench", "--subjects", str(subjects / "dog"), "--out", str(file)]) == 0
    assert {len(json.loads(line)["references"]) for line in file.read_text().splitlines()} == {1}
    assert main(["relationbench", "--subjects", str(subjects), "--out", str(file)]) == 2
    assert "exists" in capsys.readouterr().err
