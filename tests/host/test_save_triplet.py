"""Save Triplet: what it writes is what training reads; whatever does not fit writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.host.api_graphs import node
from tests.host.conftest import ROOT
from tests.host.pictures import photograph

LEFT, RIGHT = (0.0, 0.1, 0.5, 0.9), (0.5, 0.1, 1.0, 0.9)
PROMPT = "A cat is hugging a plushie bear."
READ = """
import sys
from training.config import DataConfig
from training.data.dataset import load_triplets
(one,) = load_triplets(DataConfig(folder=sys.argv[1], fit="pad"), "")
print(one.predicate, one.names, tuple(one.keypoints_target.shape), one.facts.visible_joints)
"""


@pytest.fixture(scope="module")
def output(base_directory):
    return base_directory / "output"


@pytest.fixture
def scene(studio):
    return studio.scene(
        {"image": photograph(96, 64), "name": "cat", "box": LEFT},
        {"image": photograph(64, 80), "name": "plushie bear", "box": RIGHT},
    )


@pytest.fixture
def masks():
    halves = torch.zeros(2, 48, 64)
    halves[0, 8:40, 4:30], halves[1, 10:44, 34:60] = 1, 1
    return halves


def save(pack, scene, folder, **changes):
    asked = {"target": photograph(128, 96), "prompt": PROMPT, "relation": "hugging", **changes}
    return pack.run("RelateSaveTriplet", scene=scene, folder=folder, **asked)


def person(centre, count=18):
    """OpenPose joints around a point, in fractions of a canvas of 100 x 100 pixels."""
    around = [(100 * centre[0] + 4 * np.cos(i), 100 * centre[1] + 4 * np.sin(i), 0.9) for i in range(count)]
    return {"pose_keypoints_2d": [float(number) for joint in around for number in joint]}


def frame(*people):
    return {"canvas_width": 100, "canvas_height": 100, "people": list(people)}


def lines(path):
    return [json.loads(line) for line in (path / "triplets.jsonl").read_text(encoding="utf-8").splitlines()]


def test_boxes_alone_are_enough_and_a_second_one_is_added(pack, scene, output):
    path = save(pack, scene, "sets/boxes")
    assert path == str(output / "sets" / "boxes") and save(pack, scene, "sets/boxes") == path
    first, second = lines(output / "sets" / "boxes")
    assert (first["target"], second["target"]) == ("0001/target.png", "0002/target.png")
    assert first["names"] == ["cat", "plushie bear"]
    assert np.allclose(first["boxes"], [LEFT, RIGHT], atol=1e-5)
    assert "masks" not in first
    assert first["origin"] == {"engine": "comfyui", "models": [], "licence": "not known"}  # nor does training know it
    saved = np.asarray(Image.open(output / "sets" / "boxes" / "0001" / "concept1.png"))
    assert np.array_equal(saved, (photograph(64, 80)[0].numpy() * 255).round().astype(np.uint8))


def test_training_reads_what_was_saved(pack, scene, masks, output):
    # the second person stands on the first subject, one more on nobody
    people = person((0.75, 0.6)), person((0.25, 0.5)), person((0.5, 0.02))
    keypoints = [
        frame(*people),
        frame(person((0.5, 0.5))),
        frame(person((0.4, 0.5)), {"pose_keypoints_2d": [0.0] * 54}),
    ]
    path = save(pack, scene, "sets/poses", masks=masks, keypoints=keypoints)
    (line,) = lines(output / "sets" / "poses")
    assert line["skeletons"] == ["coco", "coco"] and len(line["keypoints_concepts"][1]) == 17
    assert all(joint[0] < 0.5 for joint in line["keypoints_target"][0])
    assert line["boxes"][0] == pytest.approx([4 / 64, 8 / 48, 30 / 64, 40 / 48], abs=0.02)
    done = subprocess.run([sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "hugging ('cat', 'plushie bear') (2, 17, 3) 34", done.stderr[-2000:]


def test_fractions_with_a_joint_outside_of_the_picture_are_no_pixels(pack):
    """DWPose guesses the feet of a person whom the picture cuts off."""
    joints = [[0.5, 0.4, 1.0]] * 17 + [[0.5, 1.04, 1.0]]
    one = frame({"pose_keypoints_2d": [number for joint in joints for number in joint]})
    (skeletons, *_), _ = pack.module("nodes.pipelines.pose_frames").read_poses([one, one], 1)
    visible = skeletons[0][skeletons[0][:, 2] > 0]
    assert len(visible) == 16 and torch.allclose(visible[:, :2], torch.tensor([0.5, 0.4]))


def test_animals_keep_their_own_order_of_joints(pack, scene, masks, output):
    animal = [[30.0 + i, 50.0, 0.9 if i else 0.1] for i in range(16)] + [[101.0, 50.0, 0.9]]
    frames = [{"canvas_width": 100, "canvas_height": 100, "animals": [animal]}] * 3
    save(pack, scene, "sets/animals", masks=masks, keypoints=frames)
    (line,) = lines(output / "sets" / "animals")
    assert line["skeletons"] == ["ap10k", "ap10k"]
    assert line["keypoints_target"][0][1] == pytest.approx([0.31, 0.5, 1.0])
    assert [joint[2] for joint in line["keypoints_target"][1]] == [0.0] * 17  # one animal stands for one subject
    assert line["keypoints_concepts"][0][0] == [0.0, 0.0, 0.0]  # a low score is no joint
    assert line["keypoints_target"][0][16] == line["keypoints_concepts"][0][16] == [0.0, 0.0, 0.0]  # outside


def specks():
    """Masks so large and so nearly black that nothing is left of them at the target's size."""
    masks = torch.zeros(2, 1500, 1500)
    masks[:, 1, 1] = 1
    return masks


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"target": photograph(8, 8).repeat(2, 1, 1, 1)}, "target: expected one picture"),
        ({"prompt": "A cat is hugging somebody."}, "does not name plushie bear"),
        ({"relation": "kissing"}, "relation: 'kissing' is not in the prompt"),
        ({"relation": "  "}, "relation: '' is not in"),
        ({"masks": torch.ones(1, 8, 8)}, "masks: expected 2, one for each subject"),
        ({"masks": torch.zeros(2, 8, 8)}, "nothing is white in that of cat, plushie bear"),
        ({"masks": specks()}, "nothing is white in that of cat, plushie bear"),
        ({"keypoints": [frame()]}, "keypoints: expected 3 frames"),
        ({"keypoints": [frame({"pose": []})] * 3}, "frame 1 is no OpenPose frame"),
        ({"keypoints": [frame(), frame(), {**frame(), "animals": [[[0, 0, 0]] * 17]}]}, "got both"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(pack, scene, output, changes, words):
    with pytest.raises(ValueError, match="nothing was saved") as caught:
        save(pack, scene, "sets/wrong", **changes)
    assert words in str(caught.value) and not (output / "sets" / "wrong").exists()


def test_all_faults_come_at_once(pack, studio, output):
    bare = studio.scene({"image": photograph(8, 8), "name": "cat"}, {"image": photograph(8, 8), "name": "dog"})
    with pytest.raises(ValueError) as caught:
        save(pack, bare, "sets/wrong", relation="kissing")
    assert all(word in str(caught.value) for word in ("where is cat and dog?", "does not name dog", "kissing"))


@pytest.mark.parametrize("folder", ("", ".", "..", "../elsewhere", "/tmp/elsewhere"))
def test_no_folder_outside_the_output_folder_is_written_to(pack, scene, folder):
    with pytest.raises(ValueError, match="below ComfyUI's output folder"):
        save(pack, scene, folder)


@pytest.mark.parametrize("kind, act", [("Image", "save"), ("Path", "write_text"), ("Path", "replace")])
def test_a_full_disk_leaves_the_old_file(pack, scene, output, monkeypatch, kind, act):
    """Full at a picture, at the line, at its last moment."""
    folder = f"sets/full_{act}"
    save(pack, scene, folder)
    before = (output / folder / "triplets.jsonl").read_bytes()
    module = pack.module("nodes.pipelines.save_triplet")
    owner = {"Image": module.Image.Image, "Path": module.Path}[kind]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context, pytest.raises(OSError, match="No space"):
        context.setattr(owner, act, full)
        save(pack, scene, folder)
    assert (output / folder / "triplets.jsonl").read_bytes() == before
    assert {path.name for path in (output / folder).iterdir()} == {"0001", "triplets.jsonl"}


def test_a_served_graph_saves_and_shows_where(comfy_server, output):
    graph = {
        "1": node("LoadImage", image="subject.png"),
        "2": node("RelateSubject", image=["1", 0], name="cat", x0=0.0, y0=0.0, x1=0.5, y1=1.0, weight=1.0),
        "3": node(
            "RelateSubject", image=["1", 0], name="bear", x0=0.5, y0=0.0, x1=1.0, y1=1.0, weight=1.0, scene=["2", 0]
        ),
        "4": node(
            "RelateSaveTriplet",
            target=["1", 0],
            scene=["3", 0],
            prompt="a cat is hugging a bear",
            relation="hugging",
            folder="sets/served",
        ),
    }
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    assert run.outputs["4"]["text"] == [str(output / "sets" / "served")]
    assert lines(output / "sets" / "served")[0]["names"] == ["cat", "bear"]
