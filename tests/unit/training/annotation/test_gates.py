"""Gates, choices and measures on made cases."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tests.unit.training.annotation.made_scenes import (
    HONEST,
    LYING,
    STANDING,
    WAVING,
    draw,
    made_backends,
    parts_of,
    write_raw,
)
from training.annotation.annotate import annotate_folder
from training.annotation.choose import Candidate, choose
from training.annotation.measures import crop_likeness, grey_crop, likeness, pose_distance
from training.annotation.options import AnnotateOptions
from training.annotation.raw import read_raw
from training.annotation.sentence import known_kind, say_faults, sentence_of, usable_place
from training.annotation.thresholds import Thresholds, read_thresholds
from training.common.errors import UserErrors
from training.data.skeletons import AP10K, COCO, SKELETONS, bones_of
from training.miniworld.world.pose import KEYPOINTS

WOLF, LEOPARD = HONEST["1 wolf"], HONEST["2 leopard"]


def verdict(tmp_path, pictures=HONEST, relation="hugging", **models):
    report = annotate_folder(
        read_raw(write_raw(tmp_path / "raw", pictures)),
        tmp_path / "out",
        AnnotateOptions(relation, keep_rejected=True),
        made_backends(**models),
        Thresholds(picture_px={"reject": 16, "warn": 20}, subject_px={"reject": 8, "warn": 20}),
    )
    return report.triplets[0]


def test_an_honest_triplet_passes_every_gate(tmp_path):
    one = verdict(tmp_path, yes=0.9)
    assert one.accepted and {gate.status for gate in one.gates.values()} <= {"pass", "warn"}
    assert one.gates["relation_margin"].value == pytest.approx(0.8)  # hugging has no other way round


def test_a_directed_relation_is_asked_the_other_way_round_too(tmp_path):
    one = verdict(tmp_path, yes=0.9, relation="riding")
    assert one.gates["relation_margin"].value == pytest.approx(0.0) and one.gates["relation_margin"].status == "warn"


def swapped(key, blobs):
    return {**HONEST, key: blobs}


@pytest.mark.parametrize(
    "gate, pictures, said",
    [
        ("found", swapped("1 wolf", LEOPARD), '01/wolf.png: no "wolf" found'),
        ("found", swapped("target", HONEST["target"][:1]), '01/target.png: no "leopard" found'),
        ("alone", swapped("1 wolf", [*WOLF, ("leopard", (0.1, 0.6, 0.6, 1.0), LYING)]), '"leopard" is in it too'),
        (
            "alone",
            swapped("1 wolf", [("wolf", (0.02, 0.2, 0.45, 0.8), LYING), ("wolf", (0.55, 0.2, 0.98, 0.8), STANDING)]),
            "two of wolf (the second",
        ),
        ("pose_differs", swapped("1 wolf", [("wolf", (0.3, 0.2, 0.7, 0.9), STANDING)]), "stands as in the target"),
        ("unchanged", swapped("1 wolf", HONEST["target"]), ""),
    ],
)
def test_each_gate_rejects_what_it_is_for(tmp_path, gate, pictures, said):
    one = verdict(tmp_path, pictures)
    assert not one.accepted
    if said:
        assert one.gates[gate].status == "reject" and any(said in reason for reason in one.reasons)


def test_a_subject_pasted_from_the_target_is_rejected_although_stretched_and_moved(tmp_path):
    raw = write_raw(tmp_path / "raw")
    pixels = np.asarray(Image.open(raw / "01/target.png")).astype(int)
    stripes = parts_of(Image.open(raw / "01/target.png"), "wolf")[0] & (np.arange(160)[:, None] // 12 % 2 > 0)
    target = Image.fromarray((pixels - 9 * stripes[..., None]).clip(0).astype(np.uint8))  # a wolf with a pattern
    target.save(raw / "01/target.png")
    paste = Image.new("RGB", (160, 160), (128, 128, 128))
    paste.paste(target.crop((0, 20, 80, 150)).resize((120, 110)), (25, 30))
    paste.save(raw / "01/1 wolf.png")
    options = AnnotateOptions("hugging")
    (one,) = annotate_folder(read_raw(raw), tmp_path / "out", options, made_backends(), Thresholds()).triplets
    assert one.gates["copy_paste"].status == "reject" and one.gates["copy_paste"].value > 0.9
    assert "copy of the target's pixels" in " ".join(one.reasons)


@pytest.mark.parametrize(
    "area, least",
    [((0, 20, 80, 150), 0.85), ((56, 20, 160, 152), 0.92)],
    ids=["its own subject", "the other one, for which a detector may have taken it"],
)
def test_a_crop_of_the_target_is_rejected_although_the_cut_outs_are_not_alike(tmp_path, monkeypatch, area, least):
    raw = write_raw(tmp_path / "raw")
    Image.open(raw / "01/target.png").crop(area).resize((160, 160)).save(raw / "01/1 wolf.png")
    monkeypatch.setattr("training.annotation.gates.likeness", lambda first, second: 0.0)
    options = AnnotateOptions("hugging")
    (one,) = annotate_folder(read_raw(raw), tmp_path / "out", options, made_backends(), Thresholds()).triplets
    assert one.gates["copy_paste"].status == "reject" and one.gates["copy_paste"].value >= least


def test_a_relation_that_is_not_to_be_seen_is_rejected_and_one_nobody_judged_is_not(tmp_path):
    assert verdict(tmp_path / "no", yes=0.2).gates["relation"].status == "reject"
    one = verdict(tmp_path / "unjudged")
    assert one.accepted and one.gates["relation"].status == "not judged"


def test_two_names_on_one_animal_are_told(tmp_path):
    one = verdict(tmp_path, pretend={"leopard": ("wolf", 0.7)})
    assert any('"wolf" and "leopard" both lie on one animal' in reason for reason in one.reasons)


def test_names_are_given_boxes_together_and_background_loses():
    here, there, far = (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0.0, 0.0, 0.05, 0.1)
    bear = [Candidate(here, 0.9), Candidate(there, 0.6)]
    polar = [Candidate(here, 0.95), Candidate(far, 0.99)]
    assert [one.box for one in choose([bear, polar], 0.3)] == [there, here]
    assert [one.box for one in choose([[Candidate(far, 0.9), Candidate(here, 0.5)]], 0.3)] == [here]
    assert choose([[Candidate(here, 0.2)]], 0.3) == [None]
    assert choose([bear[:1], polar[:1]], 0.3).count(None) == 1


def test_the_best_choice_is_the_best_of_all_choices():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = np.sort(rng.random((5, 2, 2)), axis=1).reshape(5, 4)
        names = [[Candidate(tuple(box), float(rng.random())) for box in corners] for _ in range(3)]
        total = max(
            sum(names[i][j].weight for i, j in enumerate(order)) for order in itertools.permutations(range(5), 3)
        )
        assert sum(one.weight for one in choose(names, 0.0)) == pytest.approx(total)


def test_pose_distance_ignores_place_size_rotation_and_mirroring_but_not_the_pose():
    rng = np.random.default_rng(1)
    pose = np.concatenate((rng.random((17, 2)) * 100, np.full((17, 1), 2.0)), axis=1)
    angle, order = 0.7, SKELETONS[AP10K].mirrored()
    turned = pose.copy()
    turned[:, :2] = pose[:, :2] @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 3 + 40
    assert pose_distance(pose, turned, SKELETONS[AP10K]) == pytest.approx(0, abs=1e-6)
    mirrored = turned[order] * [-1, 1, 1]
    assert pose_distance(pose, mirrored, SKELETONS[AP10K]) == pytest.approx(0, abs=1e-6)
    reflected = pose * [-1, 1, 1]  # left stays left: another pose, which a Procrustes with reflections calls the same
    assert pose_distance(pose, reflected, SKELETONS[AP10K]) > 0.2
    other = np.concatenate((rng.random((17, 2)), pose[:, 2:]), axis=1)
    assert pose_distance(pose, other, SKELETONS[AP10K]) > 0.3
    pose[6:, 2] = 1
    assert pose_distance(pose, turned, SKELETONS[AP10K]) is not None
    pose[5, 2] = 1
    assert pose_distance(pose, turned, SKELETONS[AP10K]) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_pasted_subject_is_like_itself_although_its_box_is_off(mirrored):
    one, other = draw([("wolf", (0.1, 0.1, 0.6, 0.8), WAVING)]), draw([("wolf", (0.1, 0.1, 0.6, 0.8), LYING)])
    crops = [grey_crop(one, (0.1, 0.1, 0.6, 0.8), None), grey_crop(one, (0.13, 0.1, 0.63, 0.82), None)]
    assert likeness(crops[0], crops[1][:, ::-1] if mirrored else crops[1]) > 0.9
    assert likeness(crops[0], grey_crop(other, (0.1, 0.1, 0.6, 0.8), None)) < 0.85


@pytest.mark.parametrize("mirrored, larger", [(False, 1), (True, 1), (True, 9)])
def test_a_crop_with_its_surroundings_is_found_although_the_box_is_off(mirrored, larger):
    """However large the target is."""
    one, other = draw([("wolf", (0.1, 0.1, 0.6, 0.8), WAVING)]), draw([("wolf", (0.1, 0.1, 0.6, 0.8), LYING)])
    rng = np.random.default_rng(3)
    cut = np.asarray(one.crop((16, 16, 96, 128)).resize((160, 160))) * rng.uniform(0.7, 1.3, 3)
    cut = (cut + rng.normal(0, 8, cut.shape)).clip(0, 255).astype(np.uint8)
    crop = Image.fromarray(np.ascontiguousarray(cut[:, ::-1] if mirrored else cut))
    one = one.resize((larger * one.width + larger // 2, larger * one.height))  # no whole number of shrunk pixels
    assert crop_likeness(one, (0.14, 0.05, 0.55, 0.84), crop) > 0.9
    assert crop_likeness(one, (0.14, 0.05, 0.55, 0.84), other) < 0.85
    assert crop_likeness(one, (0.5, 0.5, 0.5, 0.5), crop) == -1  # a box of nothing


def test_orders_of_joints_are_the_worlds_and_mirrors_undo_themselves():
    assert SKELETONS[AP10K].joints == KEYPOINTS
    for skeleton in SKELETONS.values():
        assert len(set(skeleton.joints)) == 17 and {joint for bone in skeleton.bones for joint in bone} == set(
            range(17)
        )
        order = skeleton.mirrored()
        assert [order[joint] for joint in order] == list(range(17))
        sides = [name.replace("left", "right") for name in skeleton.joints]
        assert all(sides[order[joint]] == sides[joint] for joint in range(17))
    assert bones_of({"skeletons": ["ap10k", "coco", "none", 3]}, 1) == SKELETONS[COCO].bones
    assert bones_of({}, 0) == SKELETONS[AP10K].bones and bones_of({"skeletons": ["none"]}, 0) == ()


def test_the_sentence_says_names_and_relation_or_tells_what_its_own_lacks():
    assert sentence_of(["wolf", "owl"], "is hugging", "", "", "") == ("A wolf is hugging an owl.", "")
    own = "The wolf, happily hugging its owl"
    assert sentence_of(["wolf", "owl"], "hugging", "", own, "")[0] == own
    text, note = sentence_of(["wolf", "owl"], "hugging", "", "A wolf and a bird hug", "in snow")
    assert text == "A wolf is hugging an owl in snow." and "lacks owl, hugging" in note
    assert sentence_of(["a", "b"], "x", "{b} gets {relation} by {a} {place}.", "", "")[0] == "b gets x by a."
    assert usable_place("In a snowy forest.", ["wolf"]) == "in a snowy forest"
    assert usable_place("in a forest with a wolf", ["wolf"]) == usable_place("A forest", ["wolf"]) == ""
    assert usable_place("in a very very very very very long place", []) == ""
    assert len(say_faults("{a} {z}", "")) == 2 and say_faults("{a} and {b}", "x")[0].startswith("--say")


def test_kinds_come_from_what_was_said_then_from_the_word():
    assert known_kind("garden gnome", {}) == "humanoid" and known_kind("gnome", {"gnome": "person"}) == "person"
    assert known_kind("old woman", {}) == "person" and known_kind("bicycle", {}) == "object"
    assert known_kind("ox", {}) == ""


def test_a_file_changes_single_thresholds(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text("[identity]\nreject = 0.3\n", encoding="utf-8")
    limits = read_thresholds(path, Thresholds())
    assert limits.identity.reject == 0.3 and limits.identity.warn == 0.60 and limits.joints.reject == 4
    path.write_text("[identiti]\nreject = 0.3\n[joints]\nwarn = 'x'\n", encoding="utf-8")
    with pytest.raises(UserErrors, match="identiti") as error:
        read_thresholds(path, Thresholds())
    assert "joints.warn" in str(error.value)
