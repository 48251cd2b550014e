"""Bad input to python -m training.subject: exit code 2 and one message, before anything is written."""

import json

import pytest
from PIL import Image, ImageDraw

import training.data.subject_cache as subject_cache
import training.subject as subject
from tests.recipe.test_subject_training import QUICK, config_of, tiny_root, world  # noqa: F401 fixtures
from tests.recipe.tiny_subject import write_coco


def write_triplets(folder, **changes):
    """One triplet of two subjects in our layout, with keys changed; None takes a key away."""
    folder.mkdir()
    for name in ("target", "fox", "bear"):
        Image.new("RGB", (64, 64), "gray").save(folder / f"{name}.png")
    for index, name in enumerate(("mask0", "mask1")):
        mask = Image.new("L", (64, 64))
        ImageDraw.Draw(mask).rectangle((32 * index, 8, 32 * index + 30, 60), fill=255)
        mask.save(folder / f"{name}.png")
    Image.new("L", (32, 32), 255).save(folder / "small.png")
    line = {
        "target": "target.png", "concepts": ["fox.png", "bear.png"], "prompt": "A fox hugs a bear.", "relation": "hugs",
        "names": ["fox", "bear"], "masks": ["mask0.png", "mask1.png"], **changes,
    }  # fmt: skip
    (folder / "triplets.jsonl").write_text(json.dumps({key: value for key, value in line.items() if value is not None}))
    return folder


TRIPLETS = {
    "subjects without boxes": ({"masks": None}, "expected 'boxes' or 'masks' of the subjects in the target"),
    "a label that is not in the prompt": (
        {"names": ["fox", "badger"]},
        "its prompt 'A fox hugs a bear.' does not name 'badger'. Use the same words in both.",
    ),
    "three subjects where the file knows two": (
        {"names": ["fox", "bear", "frog"], "prompt": "A fox hugs a bear and a frog.",
         "concepts": ["fox.png", "bear.png", "fox.png"], "masks": ["mask0.png", "mask1.png", "mask1.png"]},
        "3 subjects (fox, bear, frog), adapter.max_subjects is 2. Raise it, or leave the triplet out.",
    ),
    "a prompt that holds the placeholder": (
        {"prompt": "A q fox hugs a bear."},
        "already has the word 'q', which stands for a subject",
    ),
    "a mask of another size": ({"masks": ["small.png", "mask1.png"]}, "the mask is 32 x 32 pixels, its target 64 x 64"),
}  # fmt: skip


@pytest.mark.parametrize("changes, said", TRIPLETS.values(), ids=TRIPLETS)
def test_bad_triplets_are_one_message(world, capsys, changes, said):  # noqa: F811
    folder = write_triplets(world / "mine", **changes)
    config = config_of(world)
    assert subject.main([config, *QUICK, "--set", f"data.folder={folder.as_posix()}"]) == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message and not (world / "out").exists()


SETTINGS = {
    "both kinds of data": (["data.coco=x.json"], "both are given; name data.folder for triplets or data.coco"),
    "no data": (["data.folder="], "neither is given"),
    "photographs of a COCO set": (
        ["data.folder=", "data.coco=coco/instances.json", 'data.references="concepts"'],
        "a COCO set has no photographs of its subjects",
    ),
    "nothing left": (
        ["adapter.adapter=false", "adapter.location=false", "adapter.fused_words=false"],
        "no subject would get into the picture",
    ),
    "the placeholder in the negative text": (
        ["samples.every=1", 'samples.negative="a q fox"'],
        "samples.negative: it has the placeholder 'q'. Leave that word out.",
    ),
    "shares above one": (["drop.text=0.9"], "all shares together are 1.05"),
    "no image encoder": (["models.clip_vision=nowhere"], "models.clip_vision: nowhere is not there"),
    "no base": (["models.base=nowhere"], "models.base: nowhere is neither a folder nor a file"),
    "embeddings of another vocabulary": (['adapter.text_encoder="all"'], "the base knows 59 tokens, not CLIP's 49408"),
    "no attention map as small as asked for": (
        ["loss.attention_max_cells=15"],
        "loss.attention_max_cells: expected at least 16, the cells of the smallest attention map",
    ),
    "an unknown key": (["adapter.subjects=2"], "adapter.subjects: unknown key. Did you mean adapter.max_subjects?"),
}


@pytest.mark.parametrize("overrides, said", SETTINGS.values(), ids=SETTINGS)
def test_bad_settings_are_one_message(world, capsys, overrides, said):  # noqa: F811
    sets = [part for override in overrides for part in ("--set", override)]
    assert subject.main([config_of(world), *QUICK, *sets]) == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message and not (world / "out").exists()


def test_the_preview_too_says_that_no_crop_shows_a_subject(world, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(subject_cache, "crop_scene", lambda *_: None)
    for more in (["--preview-data", str(world / "sheet.png")], ["--dry-run"]):
        assert subject.main([config_of(world), *QUICK, *more]) == 2
        assert 'data.fit: no crop shows a subject; use "pad"' in capsys.readouterr().err


def test_a_placeholder_of_several_tokens_or_inside_a_word_is_named(world, capsys):  # noqa: F811
    config = config_of(world)
    assert subject.main([config, *QUICK, "--set", "adapter.placeholder=sks"]) == 2
    assert "'sks' is 3 tokens of the base's tokenizer, expected one" in capsys.readouterr().err
    assert subject.main([config, *QUICK, "--set", "adapter.placeholder=x"]) == 2
    assert "a word of its prompt 'A fox hugs a bear.' has the placeholder's token in it" in capsys.readouterr().err


COCO = {
    "no lists": ({"images": None, "categories": 3}, "got no list of images, categories"),
    "a picture that is gone": (
        {"images": [{"id": 10, "file_name": "gone.png", "width": 96, "height": 96}]},
        "gone.png: missing; instances.json names it",
    ),
    "a box of three numbers": (
        {"annotations": [{"image_id": 10, "category_id": 1, "bbox": [1, 2, 3]}]},
        "annotations[0]: expected bbox [x, y, width, height] in pixels, got [1, 2, 3]",
    ),
    "an unknown category": (
        {"annotations": [{"image_id": 10, "category_id": 7, "bbox": [1, 2, 30, 30]}]},
        "category_id 7 is none of the categories",
    ),
    "ids that are lists": (
        {"images": [{"id": [1], "file_name": "0.png", "width": 96, "height": 96}],
         "annotations": [{"image_id": [1], "category_id": {}, "bbox": [1, 2, 30, 30]}]},
        "images[0]: expected id, file_name, width and height",
    ),
    "things too small": (
        {"annotations": [{"image_id": 10, "category_id": 1, "bbox": [1, 2, 5, 5]}]},
        "none of its 1 pictures has a thing of 0.08 to 0.7 of the picture",
    ),
    "run lengths of another size": (
        {"annotations": [{"image_id": 10, "category_id": 1, "bbox": [9, 9, 50, 50],
                          "segmentation": {"counts": [0, 100], "size": [10, 10]}}]},
        "expected run lengths of 96 x 96 pixels, got size [10, 10]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("changes, said", COCO.values(), ids=COCO)
def test_bad_coco_sets_are_one_message(world, capsys, changes, said):  # noqa: F811
    instances = write_coco(world / "broken", **changes)
    config = config_of(world, coco=instances.as_posix())
    assert subject.main([config, *QUICK]) == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message
