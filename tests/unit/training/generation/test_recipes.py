"""What each recipe asks for, and how its pictures become a folder: who is who, seeds of their own, whole or not."""

import pytest
from PIL import Image

from tests.unit.training.generation.orders import WORDS
from training.generation import wording
from training.generation.raw_folder import is_written, write_raw
from training.generation.recipes import RECIPES, RawPictures
from training.generation.request import EDIT, TEXT
from training.generation.scenes import scene_of

SCENE = scene_of("hugging", [("wolf", "owl")], 1, 1, 0)
COLOURS = {"target": (9, 9, 9), "wolf": (200, 0, 0), "owl": (0, 200, 0)}


@pytest.fixture
def asked(tmp_path):
    """Run a recipe: its requests in order, and what it made of squares coloured by whom they show."""

    def run(recipe):
        requests = []

        def draw(request):
            requests.append(request)
            shown = "target" if request.subject is None else request.scene.names[request.subject]
            Image.new("RGB", (8, 8), COLOURS[shown]).save(tmp_path / f"{shown}.png")
            return tmp_path / f"{shown}.png"

        return requests, RECIPES[recipe].draw(SCENE, WORDS, 64, draw)

    return run


def names_of(paths):
    return [path.stem for path in paths]


def test_target_first_edits_the_target_into_each_subject(asked):
    requests, _ = asked("target-first")
    assert [(one.role, one.subject, names_of(one.images)) for one in requests] == [
        (TEXT, None, []),
        (EDIT, 0, ["target"]),
        (EDIT, 1, ["target"]),
    ]
    assert [one.prompt for one in requests] == [
        wording.target_prompt(WORDS, SCENE),
        *(wording.edit_prompt(WORDS, SCENE, subject) for subject in (0, 1)),
    ]


def test_subjects_first_composes_them_in_the_order_of_the_sentence(asked):
    requests, _ = asked("subjects-first")
    assert [(one.role, one.subject, names_of(one.images)) for one in requests] == [
        (TEXT, 0, []),
        (TEXT, 1, []),
        (EDIT, None, ["wolf", "owl"]),
    ]
    assert requests[2].prompt == wording.compose_prompt(WORDS, SCENE)


@pytest.mark.parametrize("recipe", ("target-first", "subjects-first"))
def test_no_two_pictures_share_a_seed_and_everybody_gets_his_own(asked, recipe):
    requests, pictures = asked(recipe)
    assert len({one.seed for one in requests}) == 3 and all(one.width == one.height == 64 for one in requests)
    found = [picture.getpixel((0, 0)) for picture in (pictures.target, *pictures.subjects)]
    assert found == list(COLOURS.values()) and len(pictures.files) == 3


def squares():
    target, *subjects = (Image.new("RGB", (8, 8), colour) for colour in COLOURS.values())
    return RawPictures(target, tuple(subjects))


def test_a_raw_folder_names_every_picture_after_whom_it_shows(tmp_path):
    write_raw(tmp_path / "raw", SCENE, squares(), "a wolf is hugging an owl", {"seed": 1}, tmp_path / "work")
    for name, colour in COLOURS.items():
        assert Image.open(tmp_path / "raw" / "01-1" / f"{name}.png").getpixel((0, 0)) == colour
    assert is_written(tmp_path / "raw", SCENE, {"seed": 1}) and not is_written(tmp_path / "raw", SCENE, {"seed": 2})
    assert list((tmp_path / "work").iterdir()) == []


def test_a_full_disk_leaves_the_folder_that_was_there_or_none(tmp_path, monkeypatch):
    def fails(picture, path, *_, save=Image.Image.save):
        if path.name == "owl.png":
            raise OSError(28, "No space left on device")
        save(picture, path)

    for before in (False, True):
        with monkeypatch.context() as context, pytest.raises(OSError, match="No space"):
            context.setattr(Image.Image, "save", fails)
            write_raw(tmp_path / "raw", SCENE, squares(), "", {"seed": 2}, tmp_path / "work")
        assert is_written(tmp_path / "raw", SCENE, {"seed": 1}) == before
        write_raw(tmp_path / "raw", SCENE, squares(), "", {"seed": 1}, tmp_path / "work")
