"""Faces in an evaluation, with a stand-in for insightface that sees a face in every block of one colour."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import training.evaluate
from training.evaluation.assignment.face_rows import measure_faces
from training.evaluation.prompts import Entry
from training.host_diffusers.faces import open_faces

RED, BLUE, GREEN, WHITE = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)
SIDE = 20


def face(colour, box):
    embedding = np.asarray(colour, dtype=np.float64)
    return SimpleNamespace(normed_embedding=embedding / np.linalg.norm(embedding), bbox=np.asarray(box, dtype=float))


class FaceAnalysis:
    """A face in each 20 pixels of width that are not white, as wide as long as the colour stays."""

    made = []

    def __init__(self, **settings):
        self.settings = settings
        FaceAnalysis.made.append(self)
        if settings["name"] == "absent":
            raise RuntimeError("no model of this name")
        assert settings["name"] != "nested"  # as insightface does where it finds no detector
        self.models = {task: None for task in settings["allowed_modules"]}
        if settings["name"] == "detector_only":
            del self.models["recognition"]

    def prepare(self, **settings):
        self.settings |= settings

    def get(self, pixels):
        row, found, before = pixels[0, SIDE // 2 :: SIDE, ::-1], [], WHITE  # given BGR
        for place, colour in enumerate(map(tuple, row.tolist())):
            if colour == before != WHITE:
                found[-1][1][2] += SIDE
            elif colour != WHITE:
                found.append((colour, [place * SIDE, 0, (place + 1) * SIDE, SIDE]))
            before = colour
        return [face(colour, box) for colour, box in found]


@pytest.fixture
def insightface(monkeypatch):
    package, app = ModuleType("insightface"), ModuleType("insightface.app")
    app.FaceAnalysis = FaceAnalysis
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    FaceAnalysis.made.clear()


@pytest.fixture
def picture(tmp_path):
    def make(name, *colours):
        image = Image.new("RGB", (SIDE * len(colours), SIDE))
        for place, colour in enumerate(colours):
            image.paste(colour, (place * SIDE, 0, (place + 1) * SIDE, SIDE))
        image.save(tmp_path / f"{name}.png")
        return tmp_path / f"{name}.png"

    return make


def row(picture, found, *references):
    entry = Entry(1, picture("found", *found), "Two people.", "", tuple(references))
    return measure_faces([entry], open_faces("antelopev2", "cpu"))[0]


def test_both_people_are_there(insightface, picture):
    people = picture("a", RED), picture("b", BLUE)
    measured = row(picture, (RED, BLUE), *people)
    assert measured == {"face_multi_id": 1.0, "face_id_sim": 100.0, "face_id_conf": 100.0, "face_count_exact": 1.0}


def test_a_missing_person_counts_zero_and_one_face_says_nothing_of_confusion(insightface, picture):
    measured = row(picture, (RED, WHITE), picture("a", RED), picture("b", BLUE))
    assert measured == {"face_multi_id": 0.5, "face_id_sim": 50.0, "face_id_conf": None, "face_count_exact": 0.0}


def test_the_same_person_twice_is_not_both(insightface, picture):
    """ID-Sim lets two references claim one face; Multi-ID does not."""
    measured = row(picture, (RED, WHITE, RED), picture("a", RED), picture("b", RED, WHITE))
    assert measured["face_multi_id"] == 1.0 and measured["face_id_conf"] == 0.0
    assert row(picture, (RED,), picture("a", RED), picture("b", RED))["face_multi_id"] == 0.5


def test_the_largest_face_of_a_photograph_is_its_person(insightface, picture):
    assert row(picture, (BLUE,), picture("a", RED, WHITE, BLUE, BLUE))["face_id_sim"] == 100.0


def test_references_without_a_face_are_left_out(insightface, picture):
    people = picture("dog", WHITE), picture("a", RED)
    assert row(picture, (RED,), *people)["face_multi_id"] == 1.0
    assert row(picture, (RED,), people[0]) == {}


def test_a_pack_is_opened_by_name_or_folder(insightface, tmp_path):
    open_faces("antelopev2", "cpu")
    assert FaceAnalysis.made[0].settings["root"] == "~/.insightface" and FaceAnalysis.made[0].settings["ctx_id"] == -1
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert open_faces(str(tmp_path / "models" / "mine"), "cpu").name == "mine"
    assert FaceAnalysis.made[1].settings["root"] == str(tmp_path)
    with pytest.raises(ValueError, match="--faces absent: cannot be opened .no model of this name"):
        open_faces("absent", "cpu")
    with pytest.raises(ValueError, match="no model for detection was found in it; the .onnx files must lie in"):
        open_faces("nested", "cpu")
    with pytest.raises(ValueError, match="no model for recognition was found in it"):
        open_faces("detector_only", "cpu")
    with pytest.raises(ValueError, match="from a folder named models"):
        open_faces(str(tmp_path), "cpu")


def test_without_the_package_the_option_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(ValueError, match=r"--faces antelopev2: .*pip install -e '.\[faces\]'"):
        open_faces("antelopev2", "cpu")


@pytest.mark.parametrize("faces", [True, False])
def test_the_report(request, picture, tmp_path, faces):
    if faces:
        request.getfixturevalue("insightface")
    picture("a", RED)
    (tmp_path / "pictures").mkdir()
    Image.open(picture("found", RED, BLUE)).save(tmp_path / "pictures" / "1.png")
    line = {
        "picture": "1.png",
        "prompt": "A man waves.",
        "relation": "waves",
        "references": ["a.png"],
        "names": ["man"],
    }
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line))
    arguments = [str(tmp_path / "pictures"), "--prompts", str(tmp_path / "prompts.jsonl"), "--clip", "miniworld"]
    arguments += ["--out", str(tmp_path / "out"), "--device", "cpu"] + (["--faces", "antelopev2"] if faces else [])
    assert training.evaluate.main(arguments) == 0
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    if faces:
        assert "**Faces**" in text and "insightface's antelopev2" in text and "| Multi-ID (MultiHuman) |" in text
        assert facts["faces"]["groups"]["single"]["face_id_sim"]["value"] == 100.0
    else:
        assert "faces: not measured: needs --faces" in text and "faces" not in facts
