"""The prompts file: read whole, or refused with every fault and its line."""

import json

import pytest
from PIL import Image

from training.common.errors import UserErrors
from training.evaluation.prompts import read_prompts


@pytest.fixture
def folder(tmp_path):
    for name in ("pictures/1.png", "pictures/2.png", "a.png", "b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path


def read(folder, *lines):
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return read_prompts(file, folder / "pictures")


def test_a_line_needs_a_picture_and_a_prompt_only(folder):
    plain, full = read(
        folder,
        {"picture": "1.png", "prompt": "A house."},
        "",
        {
            "picture": "2.png",
            "prompt": "A cat hugs a dog.",
            "relation": "hugs",
            "references": ["a.png", "b.png"],
            "names": ["cat", "dog"],
            "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]],
            "seed": 3,
            "template": 23,
        },
    )
    assert (plain.line, plain.group, plain.relation, plain.references) == (1, "", "", ())
    assert (full.line, full.group, full.relation, full.names) == (3, "multi", "hugs", ("cat", "dog"))
    assert [path.name for path in full.references] == ["a.png", "b.png"]
    assert full.picture == folder / "pictures" / "2.png"


def test_every_fault_comes_with_its_line_in_one_report(folder):
    with pytest.raises(UserErrors) as report:
        read(
            folder,
            "{not json",
            "[1]",
            {"prompt": "A cat."},
            {"picture": "3.png", "prompt": "A cat."},
            {"picture": "1.png", "prompt": " ", "refrences": []},
            {"picture": "1.png", "prompt": "A cat.", "references": ["c.png"], "seed": True},
            {"picture": "1.png", "prompt": "A cat.", "references": ["a.png"], "names": ["cat", "dog"]},
            {"picture": "2.png", "prompt": "A cat.", "boxes": [[0.5, 0, 0.2, 1]]},
            {"picture": "1.png", "prompt": "A cat."},
            {"picture": "1.png", "prompt": "A cat."},
        )
    told = [fault.split("prompts.jsonl, ")[1] for fault in report.value.messages]
    assert told[:8] == [
        "line 1: not JSON: Expecting property name enclosed in double quotes at column 2.",
        "line 2: expected a JSON object, got [1].",
        "line 3: 'picture' is missing; expected a file name.",
        f"line 4: {folder / 'pictures' / '3.png'} is missing.",
        "line 5: 'prompt': expected a text, got ' '.",
        "line 5: 'refrences': unknown key. Did you mean references?",
        "line 6: 'seed': expected a whole number, got True.",
        "line 7: 'references': expected one of each per subject, got 1 references, 2 names.",
    ]
    assert told[8].startswith("line 8: 'boxes': expected [x0, y0, x1, y1], fractions of the picture")
    assert told[9:] == ["line 10: 1.png is in line 9 already; a picture has one line."]


def test_no_folder_no_file_no_line(folder):
    with pytest.raises(UserErrors, match="no line in it"):
        read(folder, "")
    with pytest.raises(UserErrors) as report:
        read_prompts(folder / "none.jsonl", folder / "nowhere")
    assert len(report.value.messages) == 2 and "expected a folder of pictures" in report.value.messages[0]
