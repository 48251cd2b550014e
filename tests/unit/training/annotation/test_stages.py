"""What stages ask of models, and what becomes of the answers; pictures are wider than high where that could matter."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.unit.training.annotation.made_scenes import HONEST, Eyes, parts_of, write_raw
from training.annotation.annotate import annotate_folder
from training.annotation.backends import Backends, Part
from training.annotation.coco import read_coco, write_coco
from training.annotation.edits import PictureEdits
from training.annotation.joints import visibility
from training.annotation.labelme import LabelledSubject, read_labelme, write_labelme
from training.annotation.masks import clean, paint_over
from training.annotation.options import AnnotateOptions
from training.annotation.raw import read_raw
from training.annotation.store import Store
from training.annotation.thresholds import DetectionLimits, Thresholds
from training.data.skeletons import AP10K, COCO

WIDE = (200, 100)  # width, height


def part_of(model, key="made"):
    return Part("made", key, "MIT", lambda: None, lambda: model)


def annotated(tmp_path, eyes, options, poses=(AP10K,), pictures=HONEST, other_pose=None):
    backends = Backends(
        part_of(eyes), part_of(eyes), {pose: part_of(eyes, pose) for pose in poses}, part_of(eyes), part_of(eyes)
    )
    if other_pose:
        backends.poses[COCO] = part_of(other_pose, "other")
    report = annotate_folder(
        read_raw(write_raw(tmp_path / "raw", pictures)), tmp_path / "out", options, backends, Thresholds()
    )
    folder = tmp_path / "out" / ("" if report.accepted else "rejected")
    path = folder / "triplets.jsonl"
    return report, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def test_a_joint_counts_on_its_own_mask_where_its_score_is_high_enough():
    mask = np.zeros((100, 200), bool)
    mask[20:80, 120:180] = True
    box, limits = (0.6, 0.2, 0.9, 0.8), DetectionLimits(hidden=0.05)  # 5 % of 60 pixels: 3
    scored = np.zeros((17, 3))
    scored[:7] = [
        [0.75, 0.5, 0.9],  # on it
        [0.75, 0.5, 0.29],  # faint
        [0.91, 0.5, 0.9],  # 2.5 pixels beside it
        [0.93, 0.5, 0.9],  # 6 pixels beside it
        [0.30, 0.5, 0.9],  # on it, were x and y exchanged
        [1.10, 0.5, 0.9],  # outside the picture
        [0.62, 0.9, 0.9],  # below it
    ]
    got = visibility(scored, mask, box, WIDE, limits)
    assert got[:7, 2].tolist() == [2, 1, 2, 1, 1, 0, 1] and got[5].tolist() == [0, 0, 0]
    assert visibility(scored, None, box, WIDE, limits)[:7, 2].tolist() == [2, 1, 1, 1, 1, 0, 1]  # the box stands for it


@pytest.mark.parametrize("editor", ["labelme", "xanylabeling"])
def test_edits_of_a_wide_picture_come_back_as_fractions_of_it(tmp_path, editor):
    joints = np.column_stack((np.linspace(0.1, 0.8, 17), np.linspace(0.2, 0.9, 17), np.full(17, 2.0)))
    wolf = LabelledSubject("wolf", AP10K, (0.1, 0.2, 0.8, 0.9), None, joints)
    content = write_labelme("x.png", WIDE, [wolf], PictureEdits(), editor)
    rectangle, eye = content["shapes"][:2]
    assert np.array(rectangle["points"]).max(0).tolist() == [160, 90] and eye["points"] == [[20, 20]]
    rectangle["points"], eye["points"] = [[10, 10], [190, 95]], [[50, 60]]
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    edit = read_labelme(tmp_path / "x.json", WIDE, ["wolf"], [AP10K])
    assert edit.boxes[0] == pytest.approx((0.05, 0.1, 0.95, 0.95)) and edit.joints == {0: {0: (0.25, 0.6, 2)}}
    before = write_coco([("01/x.png", "01", 0, WIDE, [wolf])])
    after = json.loads(json.dumps(before))
    one = after["annotations"][0]
    assert one["bbox"] == [20, 20, 140, 70] and one["keypoints"][:3] == [20, 20, 2]
    one["bbox"], one["keypoints"][:3] = [10, 10, 180, 85], [50, 60, 1]
    (tmp_path / "coco.json").write_text(json.dumps(after), encoding="utf-8")
    edit = read_coco(tmp_path / "coco.json", before)["01", 0]
    assert edit.boxes[0] == pytest.approx((0.05, 0.1, 0.95, 0.95)) and edit.joints == {0: {0: (0.25, 0.6, 1)}}


def test_what_a_model_said_is_kept_for_that_model_alone(tmp_path):
    store, jobs = Store(tmp_path), [({"picture": "x"}, lambda model: model)]
    assert store.run("stage", part_of("first", "1"), jobs) == ["first"]
    assert store.run("stage", part_of("second", "2"), jobs) == ["second"]
    assert store.run("stage", part_of("asked again", "1"), jobs) == ["first"]


class Watching(Eyes):
    """Remembers the pictures that the pose model and the encoder were shown."""

    def __init__(self, order=("wolf", "leopard")):
        super().__init__([], {}, 0.9)
        self.posed, self.embedded, self.order = [], [], order

    def joints(self, image, boxes):
        self.posed.append(np.asarray(image))
        return super().joints(image, boxes)

    def pictures(self, images):
        self.embedded += images
        return super().pictures(images)

    def shows(self, image, names, relation):
        return 0.1 if relation == "standing next to" else 0.9 if tuple(names) == self.order else 0.2

    def is_kind(self, image, name):
        return "object" if name == "leopard" else "animal"


@pytest.mark.parametrize("hide", [False, True])
def test_options_and_answers_reach_the_line(tmp_path, hide):
    eyes = Watching()
    options = AnnotateOptions(
        "riding", hide_others=hide, keep_rejected=True, origin={"01": {"licence": "CC0"}} if hide else {}
    )
    report, line = annotated(tmp_path, eyes, options)
    assert line["prompt"] == "A wolf is riding a leopard in a grey room."
    assert line["kinds"] == ["animal", "object"] and line["skeletons"] == [AP10K, "none"]
    assert not np.any(line["keypoints_target"][1]) and line["origin"]["annotated_by"]["detector"] == "made"
    assert line["origin"].get("licence") == ("CC0" if hide else None)
    assert report.triplets[0].gates["relation_margin"].value == pytest.approx(0.7)  # above the leopard riding the wolf
    assert 0 < report.triplets[0].gates["identity"].value <= 1
    target = next(image for image in eyes.posed if not np.array_equal(image, eyes.posed[-1]))
    assert bool(parts_of(Image.fromarray(target), "leopard")) is not hide and parts_of(Image.fromarray(target), "wolf")
    white = [np.asarray(image.convert("L")).mean() for image in eyes.embedded]
    assert min(white) > 150  # the grey around a subject is painted over


def test_origin_json_is_kept_and_what_the_caller_says_counts_before_it(tmp_path):
    raw = write_raw(tmp_path / "raw")
    (raw / "01/origin.json").write_text('{"licence": "MIT"}', encoding="utf-8")
    for origin, licence in (({}, "MIT"), ({"01": {"licence": "CC0"}}, "CC0")):
        eyes = part_of(Eyes([], {}, None))
        options = AnnotateOptions("hugging", origin=origin)
        annotate_folder(read_raw(raw), tmp_path / "out", options, Backends(eyes, eyes), Thresholds())
        line = json.loads((tmp_path / "out/triplets.jsonl").read_text(encoding="utf-8"))
        assert line["origin"]["licence"] == licence


@pytest.mark.parametrize("other, order", [(0.95, COCO), (0.5, AP10K)])
def test_a_humanoid_has_the_order_whose_joints_score_higher_on_it(tmp_path, other, order):
    class Other(Eyes):
        def joints(self, image, boxes):
            rows = super().joints(image, boxes)
            rows[..., 2] = other
            return rows

    options = AnnotateOptions("hugging", kinds={"wolf": "humanoid"}, keep_rejected=True)
    _, line = annotated(tmp_path, Eyes([], {}, None), options, other_pose=Other([], {}, None))
    assert line["skeletons"] == [order, AP10K]


def test_a_subject_is_painted_over_with_what_surrounds_it():
    image = Image.new("RGB", (60, 40), (10, 200, 30))
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    image.paste((250, 0, 0), (30, 10, 50, 20))
    assert (np.asarray(paint_over(image, [mask])) == (10, 200, 30)).all()


def test_islands_go_unless_they_are_a_part():
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:50] = True
    mask[5:8, 70:75] = True  # 15 of 1615 pixels: less than 2 %
    assert not clean(mask)[5:8, 70:75].any() and clean(mask)[10:50, 10:50].all()
    mask[5:15, 70:75] = True
    assert clean(mask)[5:15, 70:75].all()


def test_a_sentence_cannot_end_the_script_of_the_review_page(tmp_path):
    raw = write_raw(tmp_path / "raw")
    text = "A wolf is hugging a leopard </script><b>"
    (raw / "01/prompt.txt").write_text(text, encoding="utf-8")
    eyes = part_of(Eyes([], {}, None))
    annotate_folder(read_raw(raw), tmp_path / "out", AnnotateOptions("hugging"), Backends(eyes), Thresholds())
    page = (tmp_path / "out/review.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "\\u003c/script>" in page


def test_options_without_effect_are_said_before_anything_is_looked_for(tmp_path, caplog):
    class Later(Eyes):
        def detect(self, image, names):
            assert len(caplog.messages) == 2
            return super().detect(image, names)

    options = AnnotateOptions("hugging", kinds={"lepoard": "animal", "wolf": "humanoid"}, keep_rejected=True)
    annotated(tmp_path, Later([], {}, None), options, poses=(COCO,))
    assert caplog.messages == [
        "--kind lepoard: no subject of this name here; they are leopard, wolf.",
        "no joints of leopard: no model looks for them (--pose-animal, --pose-person).",
    ]
    caplog.clear()
    annotated(tmp_path / "quiet", Eyes([], {}, None), AnnotateOptions("hugging", kinds={"wolf": "object"}))
    assert not caplog.messages


def test_sentences_without_a_place_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("training.annotation.annotate.judge", lambda *_: {})
    raw, eyes = write_raw(tmp_path / "raw"), part_of(Eyes([], {}, 0.9))
    prompt = raw / read_raw(raw)[0].name / "prompt.txt"
    count = len(read_raw(raw))

    def counted(reader=None, say="", **changes):
        caplog.clear()
        triplets = [replace(one, **changes) for one in read_raw(raw)]
        options = AnnotateOptions("hugging", say=say)
        annotate_folder(triplets, tmp_path / "out", options, Backends(eyes, reader=reader), Thresholds())
        return [message.partition(".")[0] for message in caplog.messages if "without a place" in message]

    assert counted() == [f"Sentences without a place: {count} of {count}"]
    assert counted(reader=eyes) == []
    assert counted(say="A {a} is {relation} a {b} in the snow") == []
    empty = counted(say="A {a} is {relation} a {b} {place}")
    assert empty == [f"Sentences without a place: {count} of {count}"]
    assert counted(prompt="A wolf hugs a leopard", predicate="hugs") == []  # as an annotated set has it
    prompt.write_text("A wolf in the snow", encoding="utf-8")  # cannot be used: it lacks the relation
    assert counted() == [f"Sentences without a place: {count} of {count}"]
    for one in read_raw(raw):
        (raw / one.name / "prompt.txt").write_text("A wolf is hugging a leopard in the snow", encoding="utf-8")
    assert counted() == []
