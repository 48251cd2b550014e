"""Files that people edit: what we wrote is read back as nothing new, what they changed is kept for good."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.training.annotation.made_scenes import (
    COLOURS,
    HONEST,
    LYING,
    STANDING,
    WAVING,
    draw,
    made_backends,
    write_raw,
)
from training.annotation.annotate import annotate_folder, read_state
from training.annotation.coco import read_coco
from training.annotation.edits import PictureEdits
from training.annotation.labelme import LabelledSubject, read_labelme, write_labelme
from training.annotation.masks import clean, outlines
from training.annotation.options import AnnotateOptions
from training.annotation.raw import RawTriplet, read_raw, subject_name
from training.annotation.sentence import sentence_of
from training.annotation.thresholds import Thresholds
from training.common.errors import UserErrors
from training.common.folder_lock import locked
from training.common.polygons import fill_polygons
from training.data.skeletons import AP10K, SKELETONS

SIZE = (160, 160)


@pytest.fixture
def out(tmp_path):
    write_raw(tmp_path / "raw")
    again(tmp_path)
    return tmp_path / "out"


def again(tmp_path, calls=None, editor="xanylabeling", coco=None, back=False):
    triplets = read_state(tmp_path / "out")[0] if back else read_raw(tmp_path / "raw")
    options = AnnotateOptions("hugging", editor=editor)
    return annotate_folder(triplets, tmp_path / "out", options, made_backends(calls), Thresholds(), coco)


def line(out):
    return json.loads((out / "triplets.jsonl").read_text(encoding="utf-8").splitlines()[0])


def edited(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def shape(content, label, kind=None):
    return next(one for one in content["shapes"] if one["label"] == label and kind in (None, one["shape_type"]))


@pytest.mark.parametrize("editor", ["xanylabeling", "labelme"])
def test_what_we_wrote_is_no_edit_and_holds_what_training_reads(out, editor):
    again(out.parent, editor=editor)
    path = out / "01/target.json"
    assert not read_labelme(path, SIZE, ["wolf", "leopard"], [AP10K] * 2)
    content = json.loads(path.read_text(encoding="utf-8"))
    rectangles = [one for one in content["shapes"] if one["shape_type"] == "rectangle"]
    assert [len(one["points"]) for one in rectangles] == [4 if editor == "xanylabeling" else 2] * 2
    for subject, rectangle in enumerate(rectangles):
        points = np.array(rectangle["points"])
        box = np.concatenate((points.min(0), points.max(0))) / 160
        assert box == pytest.approx(line(out)["boxes"][subject], abs=1e-3 / 160)
    for one in (one for one in content["shapes"] if one["shape_type"] == "point"):
        joint = SKELETONS[AP10K].joints.index(one["label"])
        x, y, counts = line(out)["keypoints_target"][one["group_id"]][joint]
        assert one["points"][0] == pytest.approx([x * 160, y * 160], abs=1e-3) and counts == (not one["difficult"])


def test_a_rectangle_of_two_points_is_the_one_of_four(out):
    def change(content):
        for one in content["shapes"]:
            if one["shape_type"] == "rectangle":
                one["points"] = [one["points"][0], one["points"][2]]

    edited(out / "01/target.json", change)
    assert not read_labelme(out / "01/target.json", SIZE, ["wolf", "leopard"], [AP10K] * 2)


def test_edits_are_kept_through_every_further_run(out):
    def change(content):
        shape(content, "wolf", "rectangle")["points"] = [[2, 20], [70, 150]]
        shape(content, "nose")["points"] = [[33.25, 44.5]]
        shape(content, "left eye")["difficult"] = True
        content["shapes"].remove(shape(content, "neck"))

    edited(out / "01/target.json", change)
    before = line(out)
    for back in (True, False, True):
        again(out.parent, back=back)
        after = line(out)
        assert after["boxes"][0] == pytest.approx([2 / 160, 20 / 160, 70 / 160, 150 / 160], abs=1e-5)
        eye, _, nose, neck = after["keypoints_target"][0][:4]
        assert nose == pytest.approx([33.25 / 160, 44.5 / 160, 1], abs=1e-5) and eye[2] == 0 and neck == [0, 0, 0]
        assert after["boxes"][1] == before["boxes"][1] and after["keypoints_target"][1] == before["keypoints_target"][1]
        edit = read_labelme(out / "01/target.json", SIZE, ["wolf", "leopard"], [AP10K] * 2)
        assert set(edit.boxes) == {0} and set(edit.joints) == {0} and set(edit.joints[0]) == {0, 2, 3}


def test_what_we_wrote_is_no_edit_after_a_kill_before_it_was_noted(out, monkeypatch):
    edited(
        out / "01/target.json",
        lambda content: shape(content, "wolf", "polygon").update(points=[[10, 40], [60, 40], [60, 140], [10, 140]]),
    )
    honest = Path.replace

    def replace(path, target):
        if Path(target).name == "written_coco.json":
            raise KeyboardInterrupt
        return honest(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        again(out.parent, back=True)
    monkeypatch.undo()
    again(out.parent, back=True)
    edit = read_labelme(out / "01/target.json", SIZE, ["wolf", "leopard"], [AP10K] * 2)
    assert set(edit.masks) == {0} and not edit.joints


def test_an_outline_becomes_the_mask_and_others_keep_their_png(out):
    other = (out / "masks/01_target_leopard.png").read_bytes()
    edited(
        out / "01/target.json",
        lambda content: shape(content, "wolf", "polygon").update(points=[[10, 40], [60, 40], [60, 140], [10, 140]]),
    )
    again(out.parent, back=True)
    mask = np.asarray(Image.open(out / "masks/01_target_wolf.png")) > 0
    assert mask[50, 20] and mask.sum() == pytest.approx(51 * 101, rel=0.02) and not mask[30].any()
    assert (out / "masks/01_target_leopard.png").read_bytes() == other
    assert line(out)["boxes"][0] == pytest.approx([10 / 160, 40 / 160, 61 / 160, 141 / 160], abs=1e-5)


def test_an_outline_stays_as_it_was_drawn_through_every_further_run(out):
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    drawn = np.round(80 + 40 * np.stack((np.cos(turns), np.sin(turns)), axis=1), 2).tolist()
    edited(out / "01/target.json", lambda content: shape(content, "wolf", "polygon").update(points=drawn))
    (out / "decisions.json").write_text('{"01": "accept"}', encoding="utf-8")
    masks = []
    for _ in range(2):
        again(out.parent, back=True)
        content = json.loads((out / "01/target.json").read_text(encoding="utf-8"))
        assert shape(content, "wolf", "polygon")["points"] == drawn
        masks.append((out / "masks/01_target_wolf.png").read_bytes())
    assert masks[0] == masks[1]


def test_a_box_drawn_for_a_subject_that_was_not_found_saves_the_triplet(tmp_path):
    write_raw(tmp_path / "raw", {**HONEST, "2 leopard": [("cub", (0.1, 0.2, 0.7, 0.95), HONEST["1 wolf"][0][2])]})
    report, out = again(tmp_path), tmp_path / "out"
    assert report.rejected == ["01"] and "draw its box in rejected/01/leopard.json" in report.triplets[0].reasons[0]
    assert not (out / "triplets.jsonl").exists() and (out / "rejected/01/leopard.json").is_file()
    edited(
        out / "rejected/01/leopard.json",
        lambda content: content["shapes"].append(
            {"label": "leopard", "shape_type": "rectangle", "points": [[16, 32], [112, 152]]}
        ),
    )
    report = again(tmp_path, back=True)
    assert report.triplets[0].complete and report.triplets[0].gates["found"].status == "pass"
    assert report.triplets[0].gates["identity"].status == "reject"  # it is a cub all the same
    (out / "decisions.json").write_text('{"01": "accept"}', encoding="utf-8")
    assert again(tmp_path, back=True).accepted == ["01"]
    assert (out / "01/leopard.json").is_file() and not (out / "rejected/01").exists()


def test_coco_is_read_back_and_counts_more(out):
    path = out / "coco_keypoints.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert not read_coco(path, content)
    one = content["annotations"][0]
    assert (one["attributes"]["name"], one["attributes"]["picture"], len(one["keypoints"])) == ("wolf", 0, 51)
    assert content["categories"][0]["skeleton"][0] == [1, 2] and content["categories"][1]["name"] == "person"
    for joint in range(17):
        x, y, seen = one["keypoints"][3 * joint : 3 * joint + 3]
        exact = line(out)["keypoints_target"][0][joint]
        assert [x / 160, y / 160] == pytest.approx(exact[:2], abs=1e-3 / 160) and (seen == 2) == exact[2]
    one["keypoints"][6:9] = [12.5, 13.5, 2]
    one.pop("attributes")  # tools that drop them: by order
    copy = out.parent / "edited.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    again(out.parent, back=True, coco=copy)
    again(out.parent, back=True)
    assert line(out)["keypoints_target"][0][2] == pytest.approx([12.5 / 160, 13.5 / 160, 1], abs=1e-5)


def test_an_imported_copy_does_not_undo_what_was_edited_here(out):
    path = out / "coco_keypoints.json"
    elsewhere = json.loads(path.read_text(encoding="utf-8"))
    here = json.loads(path.read_text(encoding="utf-8"))
    here["annotations"][0]["keypoints"][0:3] = [20.5, 21.5, 2]
    elsewhere["annotations"][0]["keypoints"][6:9] = [12.5, 13.5, 2]
    path.write_text(json.dumps(here), encoding="utf-8")
    (out.parent / "edited.json").write_text(json.dumps(elsewhere), encoding="utf-8")
    again(out.parent, back=True, coco=out.parent / "edited.json")
    eye, _, nose = line(out)["keypoints_target"][0][:3]
    assert eye == pytest.approx([20.5 / 160, 21.5 / 160, 1], abs=1e-5)
    assert nose == pytest.approx([12.5 / 160, 13.5 / 160, 1], abs=1e-5)


def test_a_second_run_asks_no_model_and_a_new_triplet_only_for_itself(out):
    calls = []
    again(out.parent, calls)
    assert calls == []
    write_raw(out.parent / "raw", name="02", noise=9)
    assert len(again(out.parent, calls).triplets) == 2
    assert sum(call.startswith("detect") for call in calls) == 6


def test_decisions_count_before_gates(out):
    (out / "decisions.json").write_text('{"01": "reject"}', encoding="utf-8")
    report = again(out.parent, back=True)
    assert report.rejected == ["01"] and "decisions.json" in report.triplets[0].reasons[0]
    assert not (out / "triplets.jsonl").exists()
    (out / "decisions.json").write_text('{"01": "maybe", "09": "accept"}', encoding="utf-8")
    with pytest.raises(UserErrors, match="2 faults"):
        again(out.parent, back=True)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda c: c["shapes"].append({"label": "cow", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}),
            "whose",
        ),
        (lambda c: c["shapes"][0].update(points="x", description=""), "expected 'points'"),
        (lambda c: shape(c, "nose").update(label="snout"), "'snout' is no joint"),
        (lambda c: c["shapes"][0].update(points=[[5, 5], [5, 5]]), "no area"),
        (lambda c: c["shapes"][0].update(points=[[5, 5, 5]]), "expected 'points'"),
        (lambda c: c["shapes"][0].update(points=[[5, 10**400]]), "expected 'points'"),
        (lambda c: c.update(shapes=5), "expected 'shapes', a list"),
        (
            lambda c: c["shapes"].append({"label": "wolf", "shape_type": "circle", "points": [[9, 9], [5, 5]]}),
            "'circle'",
        ),
        (lambda c: shape(c, "wolf", "polygon").pop("shape_type"), "expected a rectangle, polygon or point, got None"),
        (lambda c: shape(c, "nose").pop("label"), "'' is no joint"),
        (lambda c: shape(c, "wolf", "polygon").update(points=[[500, 500], [600, 500], [600, 600]]), "no pixel"),
        (lambda c: shape(c, "wolf", "polygon").update(points=[[50, 50]]), "3 points or more, got 1"),
        (lambda c: c["relate_joints"].update({"1": 5}), "as annotate wrote them"),
        (lambda c: c["relate_joints"].update({"0": [17]}), "as annotate wrote them"),
        (lambda c: c.update(relate_outlines=[1, 1]), "as annotate wrote them"),
    ],
)
def test_odd_shapes_are_one_message_and_change_nothing(out, change, said):
    before = (out / "triplets.jsonl").read_bytes()
    edited(out / "01/target.json", change)
    with pytest.raises(UserErrors, match=said):
        again(out.parent, back=True)
    assert (out / "triplets.jsonl").read_bytes() == before


def test_another_picture_under_an_edited_name_is_refused(out):
    edited(out / "01/wolf.json", lambda content: shape(content, "nose").update(points=[[80, 80]]))
    draw(HONEST["1 wolf"], 77).save(out.parent / "raw/01/1 wolf.png")
    with pytest.raises(UserErrors, match="not the picture that"):
        again(out.parent)


def test_outlines_follow_masks_with_islands_and_single_pixels():
    mask = np.zeros((60, 80), bool)
    mask[10:30, 5:40] = mask[12:50, 20:30] = mask[40:45, 60:70] = True
    mask[55, 75] = True
    drawn = fill_polygons(outlines(mask, 0.5), (80, 60))
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95
    holed = np.ones((60, 80), bool)
    holed[5:50, 50:60] = holed[30, 30] = False
    assert clean(holed)[30, 30] and not clean(holed)[20, 55]
    mask[55, 75] = False
    assert not clean(mask)[42, 65] or mask[40:45, 60:70].sum() > 0.02 * mask.sum()


def test_names_are_read_from_files():
    names = {"wolf": "wolf", "wolf_2": "wolf", "2 polar_bear-3": "polar bear", "Polar Bear": "Polar Bear", "熊": "熊"}
    assert {stem: subject_name(stem) for stem in names} == names
    assert not PictureEdits()


def test_accents_of_a_macs_file_names_are_those_that_people_type(tmp_path):
    folder = tmp_path / "01"
    folder.mkdir()
    for name in ("target", unicodedata.normalize("NFD", "café owner"), "bär"):
        Image.new("RGB", (32, 32)).save(folder / f"{name}.png")
    (folder / "subjects.txt").write_text("café owner\nbär\n", encoding="utf-8")
    (folder / "prompt.txt").write_text("A café owner hugs a bär.", encoding="utf-8")
    (raw,) = read_raw(tmp_path)
    assert raw.names == ("café owner", "bär")
    assert sentence_of(raw.names, "hugs", "", raw.prompt, "") == (raw.prompt, "")


def test_one_outline_deleted_of_several_is_an_edit_and_none_left_is_not(tmp_path):
    mask = np.zeros(SIZE, bool)
    mask[2:22, 2:22] = mask[40:90, 30:70] = True
    wolf = LabelledSubject("wolf", AP10K, (0, 0, 1, 1), mask, np.zeros((17, 3)))
    content = write_labelme("target.png", SIZE, [wolf], PictureEdits(), "labelme")
    rectangle, *outlines_written = content["shapes"]
    assert [one["shape_type"] for one in content["shapes"]] == ["rectangle", "polygon", "polygon"]
    path = tmp_path / "target.json"
    for left, is_edit in (([0, 1], False), ([1], True), ([], False)):
        shapes = [rectangle, *(outlines_written[index] for index in left)]
        path.write_text(json.dumps({**content, "shapes": shapes}), encoding="utf-8")
        masks = read_labelme(path, SIZE, ["wolf"], [AP10K]).masks
        assert bool(masks) == is_edit and not (is_edit and masks[0][2:22, 2:22].any())


@pytest.mark.parametrize("renamed", [False, True])
def test_an_edit_of_something_else_is_refused_every_time_and_stays(out, renamed):
    edited(out / "01/target.json", lambda content: shape(content, "nose").update(points=[[80, 80]]))
    if renamed:
        (out.parent / "raw/01/prompt.txt").write_text("A leopard and a wolf are hugging.", encoding="utf-8")
        said = "its subjects were wolf, leopard, now leopard, wolf"
    else:
        draw(HONEST["target"], 77).save(out.parent / "raw/01/target.png")
        said = "not the picture that"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(UserErrors, match=said):
            again(out.parent)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_new_picture_replaces_one_that_nobody_has_edited(out):
    new = draw(HONEST["1 wolf"], 77)
    new.save(out.parent / "raw/01/1 wolf.png")
    again(out.parent)
    assert np.array_equal(np.asarray(Image.open(out / "01/wolf.png")), np.asarray(new))


def test_edits_of_a_triplet_that_was_away_for_a_run_are_kept(out):
    edited(out / "01/target.json", lambda content: shape(content, "nose").update(points=[[80, 80]]))
    raw = out.parent / "raw"
    write_raw(raw, name="02", noise=9)
    (raw / "01").rename(out.parent / "aside")
    again(out.parent)
    assert [one.name for one in read_state(out)[0]] == ["02"]
    (out.parent / "aside").rename(raw / "01")
    again(out.parent)
    (path,) = out.rglob("01/target.json")
    assert shape(json.loads(path.read_text(encoding="utf-8")), "nose")["points"] == [[80, 80]]


def test_who_is_who_by_looks_stays_so_when_something_is_edited(tmp_path, monkeypatch):
    """Of two wolves the larger one gets the first name; their looks exchange them, and an edit does not undo that."""
    monkeypatch.setitem(COLOURS, "grey wolf", (206, 40, 46))  # a wolf to the detector, another one to the encoder
    pictures = {
        "target": [("grey wolf", (0.02, 0.1, 0.5, 0.95), STANDING), ("wolf", (0.58, 0.3, 0.95, 0.9), WAVING)],
        "1 wolf": HONEST["1 wolf"],
        "2 wolf_2": [("grey wolf", (0.1, 0.2, 0.7, 0.95), LYING)],
    }
    write_raw(tmp_path / "raw", pictures)
    again(tmp_path)
    (home,) = (path.parent for path in (tmp_path / "out").rglob("target.json"))
    first = json.loads((home / "target.json").read_text(encoding="utf-8"))["shapes"][0]
    assert first["group_id"] == 0 and min(x for x, _ in first["points"]) > 80
    edited(home / "target.json", lambda content: shape(content, "nose").update(points=[[120, 80]]))
    again(tmp_path, back=True)
    after = json.loads((home / "target.json").read_text(encoding="utf-8"))["shapes"]
    assert after[0]["points"] == first["points"]
    assert next(one for one in after if one["label"] == "nose")["points"] == [[120, 80]]
    wrong = [[14, 48], [69, 48], [69, 147], [14, 147]]  # a person says that it was the other one
    edited(home / "target.json", lambda content: content["shapes"][0].update(points=wrong))
    assert again(tmp_path, back=True).triplets[0].gates["found"].status != "reject"
    (now,) = (tmp_path / "out").rglob("target.json")
    boxes = [one for one in json.loads(now.read_text(encoding="utf-8"))["shapes"] if one["shape_type"] == "rectangle"]
    assert [min(x for x, _ in one["points"]) > 80 for one in boxes] == [False, True]


def test_coco_of_a_triplet_that_has_moved_since_is_read(out):
    content = json.loads((out / "coco_keypoints.json").read_text(encoding="utf-8"))
    for image in content["images"]:
        image["file_name"] = "rejected/" + image["file_name"]
    content["annotations"][0]["keypoints"][6:9] = [12.5, 13.5, 2]
    path = out.parent / "edited.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    edit = read_coco(path, json.loads((out / "coco_keypoints.json").read_text(encoding="utf-8")))
    assert edit["01", 0].joints == {0: {2: (12.5 / 160, 13.5 / 160, 2)}}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(attributes=["wolf"]),
        lambda c: c["annotations"][0].update(keypoints=[1, 2, 3]),
        lambda c: c["images"][0].update(width=0),
        lambda c: c["images"][0].update(width=10**400),
        lambda c: c.update(annotations=[7]),
        lambda c: c.pop("images"),
    ],
)
def test_odd_coco_is_one_message(out, change):
    content = json.loads((out / "coco_keypoints.json").read_text(encoding="utf-8"))
    change(content)
    path = out.parent / "edited.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="edited.json: expected COCO keypoints"):
        read_coco(path, json.loads((out / "coco_keypoints.json").read_text(encoding="utf-8")))


def test_triplets_that_training_would_refuse_do_not_stay(out, monkeypatch):
    def refuse(*_):
        raise UserErrors("refused")

    monkeypatch.setattr("training.annotation.write.load_triplets", refuse)
    with pytest.raises(UserErrors, match="refused"):
        again(out.parent)
    assert not (out / "triplets.jsonl").exists()


def test_pictures_that_are_gone_and_a_folder_in_use_are_said(out):
    with locked(out), pytest.raises(UserErrors, match="in use"):
        again(out.parent, back=True)
    (out / "01/target.png").unlink()
    with pytest.raises(UserErrors, match="01/target.png: not a whole picture"):
        again(out.parent, back=True)
    (out / ".work/state.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserErrors, match=r"state.json: not JSON"):
        read_state(out)


def test_names_of_strangers_are_no_paths():
    raw = RawTriplet("0", Path(), (), ("../../evil", 'a"b/c', "..", "wolf", "wolf"))
    assert raw.stems() == ("target", "_.._evil", "a_b_c", "subject", "wolf", "wolf_2")


@pytest.mark.parametrize("bbox", [[10, 10, 0, 20], [10, 10, 20, -5], [200, 10, 20, 20]])
def test_a_coco_box_without_area_in_its_picture_is_refused(out, bbox):
    edited(out / "coco_keypoints.json", lambda c: c["annotations"][0].update(bbox=bbox))
    with pytest.raises(UserErrors, match="subject 0 of 01/target.png: the box has no area inside the picture"):
        again(out.parent, back=True)
