"""Triplets: both layouts read the same, annotations are carried exactly, every fault is reported at once."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.synthetic_triplets import BOXES, write_authors
from training.common.errors import UserErrors
from training.config import DataConfig
from training.data.dataset import dataset_sha256, load_triplets, prepare
from training.data.keypoint_matching import assign_keypoints_to_masks, inside_share
from training.data.preview import triplet_sheet
from training.data.square_crop import SquareCrop, box_of
from training.engine.plots import loss_chart
from training.prepare import convert
from training.prepare import main as prepare_main


@pytest.fixture
def hug(tmp_path):
    write_authors(tmp_path / "hug")
    return tmp_path / "hug"


def load(folder, **settings):
    return load_triplets(DataConfig(folder=str(folder), **settings), "hugging")


def test_the_authors_layout(hug, caplog):
    caplog.set_level(logging.INFO)
    triplets = load(hug)
    assert [t.predicate for t in triplets] == ["hugs", "hugging", "hug"]
    assert triplets[0].names == ("fox", "bear")
    assert "triplet 1 (cat, dog): skeletons reordered [2, 1]: 2.00 of 2" in caplog.text
    for triplet in triplets:  # whoever was swapped is in order now
        for box, skeleton in zip(BOXES, triplet.keypoints_target):
            assert bool((skeleton[:, 0] > box[0]).all() and (skeleton[:, 0] < box[2]).all())
    swapped = load(hug, match_skeletons=False)[1].keypoints_target
    torch.testing.assert_close(swapped.flip(0), triplets[1].keypoints_target)


def test_converted_triplets_are_the_same(hug, tmp_path, capsys):
    assert prepare_main(["--convert", str(hug), str(tmp_path / "ours")]) == 0
    assert "wrote 3 triplets" in capsys.readouterr().out
    assert (tmp_path / "ours" / "preview.png").exists()
    settings = DataConfig(folder="d", image_px=64)
    for theirs, ours in zip(load(hug), load(tmp_path / "ours")):
        a, b = prepare(theirs, settings), prepare(ours, settings)
        assert (theirs.prompt, theirs.predicate, theirs.names) == (ours.prompt, ours.predicate, ours.names)
        for name in ("target", "concepts", "region", "visible", "time_ids"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        for name in ("boxes", "keypoints_target", "keypoints_concepts"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-6, rtol=0)
    with pytest.raises(UserErrors, match="exists; choose a folder that does not"):
        convert(hug, tmp_path / "ours")


def test_boxes_from_masks_are_exact(hug):
    example = prepare(load(hug)[0], DataConfig(folder="d", image_px=64))
    edges = torch.tensor(
        [
            [
                np.floor(box[0] * 96) / 96,
                np.floor(box[1] * 96) / 96,
                np.ceil(box[2] * 96) / 96,
                np.ceil(box[3] * 96) / 96,
            ]
            for box in BOXES
        ]
    )
    torch.testing.assert_close(example.boxes, edges.float(), atol=1.1 / 96, rtol=0)
    mask = np.zeros((4, 8), dtype=bool)
    mask[1:3, 2] = True
    assert box_of(mask).tolist() == [2 / 8, 1 / 4, 3 / 8, 3 / 4]
    assert box_of(np.zeros((4, 8), dtype=bool)) is None


@pytest.mark.parametrize("size", [(96, 96), (150, 96), (96, 150)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("crop", [0, 1, 2])
def test_a_marked_pixel_is_where_its_keypoint_says(tmp_path, size, fit, crop):
    """A white dot in a black picture, a keypoint on it and a mask around it, through every way of cutting."""
    write_authors(tmp_path / "d", count=1, size=size, swapped=())
    dot = (size[0] // 2 - 3, size[1] // 2 + 5)
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), (dot[0] - 2, dot[1] - 2, dot[0] + 3, dot[1] + 3))
    picture.save(tmp_path / "d" / "videos" / "0" / "motion.png")
    point = torch.tensor([(dot[0] + 0.5) / size[0], (dot[1] + 0.5) / size[1]])
    skeletons = torch.load(tmp_path / "d" / "videos" / "0" / "motion_keyposes.pth", weights_only=True)
    skeletons[0, 4] = point
    torch.save(skeletons, tmp_path / "d" / "videos" / "0" / "motion_keyposes.pth")
    mask = Image.new("L", size)
    mask.paste(255, (dot[0] - 2, dot[1] - 2, dot[0] + 3, dot[1] + 3))
    for subject in range(2):
        mask.save(tmp_path / "d" / "masks" / "0" / f"motion{subject}.png")
    config = DataConfig(folder=str(tmp_path / "d"), image_px=256, fit=fit, crops=3, match_skeletons=False)
    example = prepare(load_triplets(config, "")[0], config, crop, seed=7)
    light = example.target.mean(0).double()
    rows, columns = torch.meshgrid(*[torch.arange(256) + 0.5] * 2, indexing="ij")
    centre = torch.stack(((light * columns).sum(), (light * rows).sum())) / light.sum() / 256
    torch.testing.assert_close(example.keypoints_target[0, 4].double(), centre, atol=0.5 / 256, rtol=0)
    assert bool(example.visible[0, 4])
    middle = (example.boxes[0, :2] + example.boxes[0, 2:]) / 2
    torch.testing.assert_close(middle, example.keypoints_target[0, 4], atol=1e-6, rtol=0)
    lit = light > 0.5
    box = box_of(lit.numpy())
    torch.testing.assert_close(example.boxes[0], box, atol=1.01 / 256, rtol=0)


def test_keypoints_outside_or_unseen_do_not_count(tmp_path):
    write_authors(tmp_path / "d", count=1, size=(192, 96), swapped=())
    path = tmp_path / "d" / "videos" / "0" / "motion_keyposes.pth"
    skeletons = torch.load(path, weights_only=True)
    skeletons[0, 0] = torch.tensor([0.01, 0.5])  # cut off by the square in the middle
    skeletons[1, 3] = torch.tensor([-0.2, 0.5])  # outside the picture
    torch.save(skeletons, path)
    config = DataConfig(folder=str(tmp_path / "d"), image_px=64)
    visible = prepare(load_triplets(config, "")[0], config).visible
    assert not visible[0, 0] and not visible[1, 3]
    assert visible.sum() > 20


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100)])
def test_a_random_padded_square_moves_about_a_picture_that_stays_whole(width, height):
    """Along the short side, where the square is larger than the picture; the long side keeps the subjects."""
    keep = torch.tensor([0.0, 0.0, 1.0, 1.0])
    starts = set()
    for seed in range(20):
        place = SquareCrop.random(width, height, "pad", keep, torch.Generator().manual_seed(seed))
        start, size = (place.top, height) if height < width else (place.left, width)
        assert start <= 0 and start + place.side >= size
        starts.add(start)
    assert len(starts) > 5


def test_micro_conditioning_tells_the_crop():
    place = SquareCrop.centred(1536, 1024, "crop")
    assert place.time_ids(1024).tolist() == [1024, 1536, 0, 256, 1024, 1024]
    assert SquareCrop.centred(1536, 1024, "pad").time_ids(768).tolist() == [1024, 1536, 0, 0, 768, 768]


def test_skeletons_are_matched_by_masks():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :, :5], masks[1, :, 5:] = True, True
    between = torch.tensor([[0.2, 0.5, 1.0], [0.7, 0.5, 1.0], [0.7, 0.1, 0.0]])
    left, right = (torch.cat((torch.full((3, 2), x), torch.ones(3, 1)), dim=1) for x in (0.2, 0.7))
    assert inside_share(torch.stack((left, between)), masks).tolist() == [[1, 0], [0.5, 0.5]]
    order, sentence = assign_keypoints_to_masks(torch.stack((right, between, left)), masks)
    assert order == (2, 0)
    assert sentence.startswith("skeletons reordered [3, 1]: 2.00 of 2")
    order, sentence = assign_keypoints_to_masks(torch.stack((left, right)), masks)
    assert (order, sentence) == ((0, 1), "")
    order, sentence = assign_keypoints_to_masks(torch.stack((left, left)), masks)
    assert order == (0, 1)
    assert "too much to be sure" in sentence
    with pytest.raises(ValueError, match="at most 6 subjects, got 7"):
        assign_keypoints_to_masks(torch.zeros(7, 3, 3), np.ones((7, 4, 4), dtype=bool))


def test_every_fault_is_in_one_report(hug):
    (hug / "masks" / "0" / "motion1.png").unlink()
    (hug / "videos" / "1" / "motion.png").write_bytes(b"\x89PNG no picture")
    torch.save(torch.zeros(2, 17, 3), hug / "videos" / "2" / "motion_keyposes.pth")
    with pytest.raises(UserErrors) as report:
        load(hug)
    text = str(report.value)
    assert "motion1.png: missing; triplet 0 needs it" in text
    assert "motion_keyposes.pth: expected keypoints of shape (subjects, 17, 2), got (2, 17, 3)" in text
    (hug / "masks" / "0" / "motion1.png").write_bytes((hug / "masks" / "1" / "motion1.png").read_bytes())
    torch.save(torch.rand(2, 17, 2), hug / "videos" / "2" / "motion_keyposes.pth")
    Image.new("L", (96, 96)).save(hug / "masks" / "2" / "motion0.png")
    Image.new("L", (90, 96), 255).save(hug / "masks" / "2" / "motion1.png")
    with pytest.raises(UserErrors) as report:
        load(hug)
    text = str(report.value)
    assert "motion.png: not a whole picture" in text
    assert "motion0.png: the mask is empty" in text
    assert "the mask is 90 x 96 pixels, its target 96 x 96" in text


def test_three_subjects_where_two_are_named(hug):
    for folder in ("0", "1"):
        (hug / "videos" / folder / "concept2.png").write_bytes((hug / "videos" / "0" / "concept1.png").read_bytes())
    with pytest.raises(UserErrors, match='"0": 2 entities, but there is a concept2.png'):
        load(hug)


def ours(tmp_path, **changes):
    write_authors(tmp_path / "d", count=1, swapped=())
    convert(tmp_path / "d", tmp_path / "ours")
    path = tmp_path / "ours" / "triplets.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tmp_path / "ours"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"names": ["fox", "bear", "owl"]}, "3 subjects are named (fox, bear, owl), got 2 concepts"),
        ({"target": None}, "'target': expected a text, got None"),
        ({"boxes": [[0, 0, 1]]}, "'boxes': expected 2 x 4, got 1 x 3"),
        ({"keypoints_target": [[[0, 0, 1]] * 5] * 2}, "have 5 keypoints, the concepts' 17"),
        ({"keypoints_concepts": [[[0, 0]] * 17] * 2}, "'keypoints_concepts': expected 2 x any x 3, got 2 x 17 x 2"),
        ({"boxes": None, "masks": []}, "expected 'boxes' or 'masks' of the subjects"),
        ({"prompt": "Nothing.", "relation": "hugs"}, "no words for the relation found in 'Nothing.'"),
        ({"concepts": ["0/absent.png", "0/concept1.png"]}, "absent.png: missing"),
    ],
)
def test_faults_of_our_layout(tmp_path, changes, expected):
    with pytest.raises(UserErrors) as report:
        load(ours(tmp_path, **changes))
    assert expected in str(report.value)


def test_boxes_alone_are_enough(tmp_path):
    folder = ours(tmp_path, masks=[], boxes=[list(box) for box in BOXES], keypoints_target=[], keypoints_concepts=[])
    example = prepare(load(folder)[0], DataConfig(folder="d", image_px=64))
    torch.testing.assert_close(example.boxes, torch.tensor(BOXES))
    assert example.visible.shape == (2, 0)
    assert 0.4 < float(example.region.mean()) < 0.7


def test_empty_and_wrong_folders(tmp_path):
    with pytest.raises(UserErrors, match="expected triplets.jsonl or prompts.json"):
        load(tmp_path)
    (tmp_path / "triplets.jsonl").write_text("\n")
    with pytest.raises(UserErrors, match="no triplet in it"):
        load(tmp_path)
    (tmp_path / "triplets.jsonl").write_text("{}\n{oops\n")
    with pytest.raises(UserErrors, match="line 2: not JSON"):
        load(tmp_path)


def test_the_dataset_hash_tells_contents_not_places(hug, tmp_path):
    write_authors(tmp_path / "again")
    assert dataset_sha256(load(hug)) == dataset_sha256(load(tmp_path / "again"))
    (hug / "prompts.json").write_text((hug / "prompts.json").read_text().replace("A fox", "One fox"))
    assert dataset_sha256(load(hug)) != dataset_sha256(load(tmp_path / "again"))


def test_sheets_have_a_row_a_triplet_and_a_panel_a_loss(hug):
    examples = [prepare(triplet, DataConfig(folder="d", image_px=64)) for triplet in load(hug)]
    sheet = triplet_sheet(examples, side=100)
    assert sheet.size == (3 * 108 + 8, 3 * 148 + 8)
    red = np.asarray(sheet).reshape(-1, 3) == np.array([214, 62, 78])
    assert red.all(axis=1).sum() > 100  # the first subject's box and joints
    assert loss_chart({"a": [1.0, 0.5], "b": [3.0]}).size == (900, 520)
