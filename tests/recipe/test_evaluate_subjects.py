"""Who is where and whether it happened: stubs that know the truth, and the command with tiny detectors and judges."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe import tiny_vision
from training.common.errors import UserErrors
from training.common.vision import Detection
from training.evaluate import main
from training.evaluation.assignment.subjects import (
    SubjectModels,
    detection_name,
    measure_floor,
    measure_subjects,
    photographs_of,
)
from training.evaluation.prompts import Entry, read_prompts
from training.host_diffusers.embedders import Embedder

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
HALVES = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))


class Halves:
    """Finds something in each half of a picture that is not white, under names by colour."""

    name = "halves"

    def detect(self, image, names):
        kinds = {RED: "cat", BLUE: "bear", GREEN: "cat"}
        found = []
        for box, x in zip(HALVES, (image.width // 4, 3 * image.width // 4)):
            colour = image.getpixel((x, image.height // 2))
            if kinds.get(colour) in names:
                found.append(Detection(kinds[colour], box, 0.9))
        return found


COLOUR = Embedder(
    "colour",
    lambda pictures: torch.tensor(
        [
            [1 + part for part in picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))]
            for picture in pictures
        ],
        dtype=torch.float32,
    ),
)


@pytest.fixture
def halves(tmp_path):
    """Pictures of two halves, and their entries: a red cat on the left, a blue bear on the right."""
    for name, colour in (("cat", RED), ("bear", BLUE)):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")

    def entry(line, left, right, boxes=HALVES):
        picture = Image.new("RGB", (40, 20), right)
        picture.paste(left, (0, 0, 20, 20))
        path = tmp_path / f"{line}.png"
        picture.save(path)
        return Entry(
            line,
            path,
            "a cat and a bear",
            "hugging",
            (tmp_path / "cat.png", tmp_path / "bear.png"),
            ("cat", "bear"),
            boxes=boxes,
        )

    return entry


def measures(entries, floor=0.5):
    results = measure_subjects(entries, SubjectModels(Halves(), COLOUR), floor)
    return [row.measures for row in results.rows]


def test_honest_swapped_missing_and_duplicated_subjects(halves):
    honest, swapped, missing, twice = measures(
        [halves(1, RED, BLUE), halves(2, BLUE, RED), halves(3, RED, (255, 255, 255)), halves(4, RED, RED)]
    )
    assert (honest.found, honest.swap, honest.count_exact, honest.centre_inside) == (1, 0, 1, 1)
    assert (swapped.found, swapped.swap, swapped.centre_inside) == (1, 1, 0)
    assert (missing.found, missing.fewer, missing.swap, missing.count_exact) == (0.5, 1, 0, 0)
    assert (twice.found, twice.count_exact) == (0.5, 0)


def test_the_floor_is_measured_between_different_subjects(halves):
    results = measure_subjects([halves(1, RED, BLUE)], SubjectModels(Halves(), COLOUR))
    red, blue = np.array([256, 1, 1]), np.array([1, 1, 256])
    assert results.floor == pytest.approx(red @ blue / np.linalg.norm(red) ** 2, abs=1e-5) and results.floor_from == 2
    with pytest.raises(UserErrors, match="Give it with --floor"):
        measure_floor([torch.ones(3)])


def test_a_line_without_names_is_not_measured_and_broken_pictures_are_one_report(halves, tmp_path):
    plain = Entry(2, tmp_path / "1.png", "a house")
    results = measure_subjects([halves(1, RED, BLUE), plain], SubjectModels(Halves(), COLOUR), 0.5)
    assert results.rows[1] is None and results.rows[0] is not None
    (tmp_path / "cat.png").write_bytes(b"x")
    (tmp_path / "1.png").write_bytes(b"x")
    with pytest.raises(UserErrors) as report:
        measures([Entry(**{**vars(halves(3, RED, BLUE)), "picture": tmp_path / "1.png"})])
    assert len(report.value.messages) == 2


def test_people_are_detected_as_persons_and_views_follow_the_reference(tmp_path):
    assert detection_name("old Woman") == "person" and detection_name("plushie bear") == "plushie bear"
    a, b, c = (tmp_path / name for name in "abc")
    assert photographs_of(Entry(1, a, "", references=(a, b), views=((b, a), (c,)))) == [(a, b), (b, c)]
    assert photographs_of(Entry(1, a, "", references=(a,))) == [(a,)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: str(getattr(tiny_vision, kind)(folder / kind)) for kind in ("grounding_dino", "dinov2", "qwen_vl", "sam")
    }


@pytest.fixture
def asked(tmp_path):
    draw = np.random.default_rng(0)
    lines = []
    for number in range(2):
        for name in (f"pictures/{number}.png", f"other/{number}.png", f"cat{number}.png", f"bear{number}.png"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
        lines.append(
            {
                "picture": f"{number}.png",
                "prompt": "a cat is carrying a bear",
                "relation": "carrying",
                "references": [f"cat{number}.png", f"bear{number}.png"],
                "names": ["cat", "bear"],
                "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]],
                "set": "msbench",
                "symmetric": False,
            }
        )
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return [
        "--prompts",
        str(tmp_path / "prompts.jsonl"),
        "--device",
        "cpu",
        "--clip",
        "miniworld",
        "--out",
        str(tmp_path / "out"),
    ]


def test_the_command_with_a_detector_a_segmenter_a_judge_and_grades(asked, models, tmp_path, capsys):
    code = main(
        [
            str(tmp_path / "pictures"),
            *asked,
            "--detector",
            models["grounding_dino"],
            "--encoder",
            models["dinov2"],
            "--segmenter",
            models["sam"],
            "--judge",
            models["qwen_vl"],
            "--grades",
        ]
    )
    out = capsys.readouterr()
    assert code == 0, out.err
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert facts["subjects"]["floor_from"] == 4 and set(facts["subjects"]["models"]) == {
        "detector",
        "encoder",
        "segmenter",
    }
    assert facts["judge"]["unparsable"] == 2 and 0 < facts["judge"]["mass"] < 1
    assert facts["licences"] == {"msbench": "code MIT; pictures not stated"}
    picture = facts["pictures"][0]
    assert {"found", "swap", "confusion"} <= set(picture["subjects"]) and "reversed" in picture["judge"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "Who is where" in table and "Whether it happened" in table and "2 of 2 answers could not be read" in table
    assert "answering something else" in table  # a random model says neither Yes nor No


def test_what_was_not_asked_for_is_said_and_is_no_zero(asked, tmp_path, capsys):
    assert main([str(tmp_path / "pictures"), *asked]) == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "who is where: not measured: needs --detector" in table and "happened: not measured: needs --judge" in table
    assert "found" not in json.loads((tmp_path / "out" / "scores.json").read_text())["pictures"][0].get("subjects", {})


def test_against_another_folder(asked, tmp_path, capsys):
    assert main([str(tmp_path / "pictures"), *asked, "--against", str(tmp_path / "other")]) == 0
    facts = json.loads((tmp_path / "out" / "scores.json").read_text())["against"]["other"]
    assert facts["pairs"] == 2 and {one["key"] for one in facts["measures"]} == {"CLIP-T", "CLIP-R", "CLIP-I"}
    assert "**pictures against other**" in capsys.readouterr().out
    (tmp_path / "other" / "1.png").unlink()
    assert main([str(tmp_path / "pictures"), *asked, "--against", str(tmp_path / "other")]) == 2
    assert "1.png is missing" in capsys.readouterr().err


def test_every_model_that_cannot_be_opened_is_in_one_report(asked, tmp_path, capsys):
    nowhere = str(tmp_path / "pictures")
    assert (
        main(
            [
                str(tmp_path / "pictures"),
                *asked,
                "--detector",
                nowhere,
                "--encoder",
                nowhere,
                "--judge",
                nowhere,
                "--judge-accuracy",
                "none.json",
            ]
        )
        == 2
    )
    report = capsys.readouterr().err
    assert all(name in report for name in ("--detector", "--encoder", "--judge ", "--judge-accuracy"))


def test_a_judge_against_labels_through_the_command(asked, models, tmp_path, capsys):
    labels = [
        {
            "picture": f"{number}.png",
            "question": "Is the cat carrying the bear in this picture?",
            "answer": answer,
            "by": "ann",
        }
        for number, answer in enumerate(("yes", "no"))
    ]
    (tmp_path / "pictures" / "labels.jsonl").write_text("\n".join(map(json.dumps, labels)))
    assert (
        main(
            [
                "judge",
                "--labels",
                str(tmp_path / "pictures" / "labels.jsonl"),
                "--judge",
                models["qwen_vl"],
                "--out",
                str(tmp_path / "judged"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    facts = json.loads((tmp_path / "judged" / "accuracy.json").read_text())
    assert facts["accuracy"]["sensitivity"]["samples"] == 1 and len(facts["answers"]) == 2
    assert "Few labels" in (tmp_path / "judged" / "table.md").read_text()
    assert Image.open(tmp_path / "judged" / "sheet.png").width > 1000
    assert math.isfinite(facts["answers"][0]["p"])


def test_the_labelling_page_through_the_command(asked, tmp_path, capsys):
    arguments = ["judge", "page", str(tmp_path / "pictures"), *asked[:2], "--out", str(tmp_path / "label.html")]
    assert main(arguments) == 0
    page = (tmp_path / "label.html").read_text(encoding="utf-8")
    assert page.count('"question": "Is the cat carrying the bear in this picture?"') == 2
    assert main(arguments) == 2 and "exists; choose a file" in capsys.readouterr().err


def test_boxes_questions_and_views_are_read_and_checked(asked, tmp_path):
    path = tmp_path / "prompts.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    line |= {
        "questions": [{"text": "Is it day?"}, {"text": "Is it bright?", "parents": [0], "wanted": False}],
        "views": [["cat0.png", "cat1.png"], ["bear0.png"]],
        "seed": 3,
    }
    path.write_text(json.dumps(line))
    (entry,) = read_prompts(path, tmp_path / "pictures")
    assert entry.boxes == HALVES and entry.symmetric is False and entry.seed == 3
    assert entry.questions[1].parents == (0,) and not entry.questions[1].wanted
    assert entry.views[0][1].name == "cat1.png"
    for wrong, said in (
        ({"questions": [{"text": "?", "parents": [0]}]}, "'questions': expected"),  # a question of its own answer
        ({"symmetric": 1, "views": [["x.png"], ["y.png"]]}, "'symmetric': expected true or false"),
    ):
        path.write_text(json.dumps(line | wrong))
        with pytest.raises(UserErrors) as report:
            read_prompts(path, tmp_path / "pictures")
        assert said in str(report.value)
