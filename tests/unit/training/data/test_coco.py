"""COCO sets as data: boxes, polygons, run lengths in both spellings, and the loader's choice of subjects."""

import numpy as np
import pytest

from tests.recipe.tiny_subject import compressed, rle, write_coco
from training.common.errors import UserErrors
from training.config.subject import AdapterConfig, SubjectDataConfig
from training.data.coco import Thing, _decoded, read_coco
from training.data.subject_scenes import crop_scene
from training.data.subject_sources import load_scenes


def blob(height=20, width=30, seed=0):
    rows, columns = np.mgrid[0:height, 0:width]
    return (rows - 9) ** 2 + (columns - 12 - seed) ** 2 < 60


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_are_read_in_both_spellings(seed):
    mask = blob(seed=seed)
    for counts in (rle(mask), compressed(rle(mask))):
        thing = Thing("it", (0, 0, 1, 1), {"counts": counts, "size": [20, 30]})
        assert np.array_equal(thing.mask(30, 20), mask)


def test_compressed_counts_are_cocos_own():
    """Written by COCO's own tool (pycocotools 2.0.11) of a square in 5 x 4 pixels, and of the blob."""
    assert _decoded("62304") == [6, 2, 3, 2, 7]
    assert _decoded("Z37<2N2N2N2O000000000001N2N2N2NS6") == rle(blob())


def test_a_thing_without_segmentation_is_its_box():
    assert Thing("it", (0.25, 0.5, 0.75, 1.0), None).mask(8, 4).sum() == 4 * 2


def test_crowds_and_boxes_of_no_width_are_left_out(tmp_path):
    path = write_coco(
        tmp_path,
        count=1,
        annotations=[
            {"image_id": 10, "category_id": 1, "bbox": [0, 0, 40, 60], "iscrowd": 1},
            {"image_id": 10, "category_id": 1, "bbox": [0, 0, 0, 60]},
            {"image_id": 10, "category_id": 2, "bbox": [0, 0, 40, 60]},
        ],
    )
    (picture,) = read_coco(path, tmp_path, None)
    assert [thing.name for thing in picture.things] == ["bear"] and picture.caption == ""


def test_coordinates_far_outside_are_as_good_as_the_border(tmp_path):
    half = [[-1e30, -1e30, 48, -1e30, 48, 1e30, -1e30, 1e30]]
    everywhere = [-(10**300), -1e300, 10**308, 1e308]
    annotations = [{"image_id": 10, "category_id": 1, "bbox": everywhere, "segmentation": half}]
    path = write_coco(tmp_path, count=1, side=(96, 96), annotations=annotations)
    (picture,) = read_coco(path, tmp_path, None)
    (thing,) = picture.things
    mask = thing.mask(96, 96)
    assert thing.box == (0, 0, 1, 1) and mask[:, :48].all() and not mask[:, 50:].any()


@pytest.mark.parametrize("side", [10**400, float("nan"), float("inf"), True, "1"])
def test_a_box_of_no_numbers_is_named(tmp_path, side):
    annotations = [{"image_id": 10, "category_id": 1, "bbox": [0, 0, side, 10]}]
    with pytest.raises(UserErrors, match=r"annotations\[0\]: expected bbox"):
        read_coco(write_coco(tmp_path, count=1, annotations=annotations), tmp_path, None)


CONFIG = SubjectDataConfig(coco="instances.json", image_px=64)
THINGS = {
    "too small": ([0, 0, 20, 20], [48, 10, 40, 60], ["bear"]),
    "too large": ([0, 0, 96, 90], [48, 10, 40, 60], ["bear"]),
    "too long": ([0, 0, 96, 20], [48, 10, 40, 60], ["bear"]),
    "inside the other": ([50, 12, 30, 40], [48, 10, 40, 60], ["bear"]),
    "both": ([0, 10, 40, 60], [48, 10, 40, 70], ["bear", "fox"]),  # the larger one first
}


@pytest.mark.parametrize("fox, bear, names", THINGS.values(), ids=THINGS)
def test_subjects_are_chosen_as_the_released_loader_does(tmp_path, fox, bear, names):
    annotations = [
        {"image_id": 10, "category_id": 1, "bbox": fox},
        {"image_id": 10, "category_id": 2, "bbox": bear},
    ]
    path = write_coco(tmp_path, count=1, annotations=annotations)
    (scene,) = load_scenes(CONFIG.model_copy(update={"coco": str(path)}), AdapterConfig(), 0)
    assert list(scene.names) == names
    assert scene.prompt == f"a photo of {' and '.join(f'a {name}' for name in names)}"


def test_the_prompt_of_a_picture_without_a_caption_names_its_things(tmp_path):
    things = [{"image_id": 10, "category_id": 1, "bbox": [0, 10, 40, 60]}]
    path = write_coco(tmp_path, count=1, annotations=things)
    path.write_text(path.read_text(encoding="utf-8").replace('"fox"', '"umbrella"'), encoding="utf-8")
    (scene,) = load_scenes(CONFIG.model_copy(update={"coco": str(path)}), AdapterConfig(), 0)
    assert scene.prompt == "a photo of an umbrella"


def test_a_box_that_its_thing_hardly_fills_is_no_subject(tmp_path):
    """The released loader counts the background in the box too, so that it is always full (SD-B4)."""
    thin = [[0, 10, 40, 10, 40, 14, 4, 14, 4, 70, 0, 70]]
    annotations = [
        {"image_id": 10, "category_id": 1, "bbox": [0, 10, 40, 60], "segmentation": thin},
        {"image_id": 10, "category_id": 2, "bbox": [48, 10, 40, 60]},
    ]
    path = write_coco(tmp_path, count=1, annotations=annotations)
    (scene,) = load_scenes(CONFIG.model_copy(update={"coco": str(path)}), AdapterConfig(), 0)
    assert scene.names == ("bear",)


def test_crops_keep_the_subjects_that_can_be_seen(tmp_path):
    path = write_coco(tmp_path, count=1, side=(192, 64))
    (scene,) = load_scenes(CONFIG.model_copy(update={"coco": str(path), "least_area": 0.01}), AdapterConfig(), 0)
    assert len(scene.names) == 2
    kept = [crop_scene(scene, CONFIG, crop, seed=0) for crop in range(8)]
    for seen, place in filter(None, kept):
        boxes = place.boxes(seen.boxes)
        assert len(seen.names) == len(boxes) and bool((boxes[:, 2] > boxes[:, 0]).all())
    assert {len(seen.names) for seen, _ in filter(None, kept)} <= {1, 2}
