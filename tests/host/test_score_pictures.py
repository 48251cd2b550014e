"""Score Pictures: best first, swaps recognised, on the miniworld's CLIPs and on CLIPs that do not fit each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.host.api_graphs import node
from tests.host.pictures import photograph

LEFT, RIGHT = (0.0, 0.1, 0.5, 0.9), (0.5, 0.1, 1.0, 0.9)
PROMPT = "a fox is hugging a bear in a meadow"


@pytest.fixture(scope="module")
def world(pack):
    """The miniworld's CLIP and CLIP vision."""
    _, clip, _, clip_vision, _, _ = pack.run("RelateMiniworldLoader")
    return {"clip": clip, "clip_vision": clip_vision}


@pytest.fixture(scope="module")
def creatures(pack):
    return {
        name: pack.run("RelateMiniworldCreature", creature=file)[0]
        for name, file in (("fox", "fox-red-cape"), ("bear", "bear-teal-crown"), ("cat", "cat-blue-bow_tie"))
    }


@pytest.fixture
def scene(studio, creatures):
    return studio.scene(
        *({"image": creatures[name], "name": name, "box": box} for name, box in (("fox", LEFT), ("bear", RIGHT)))
    )


def side_by_side(left, right):
    """A picture of two creatures, each in its half."""
    return torch.cat((left, right), dim=2)


def batch(*pictures):
    return torch.cat(
        [F.interpolate(picture.movedim(-1, 1), size=(128, 128), mode="area").movedim(1, -1) for picture in pictures]
    )


def test_the_picture_with_everyone_in_place_is_first_and_the_swapped_one_last(pack, scene, creatures, world):
    fox, bear, cat = (creatures[name] for name in ("fox", "bear", "cat"))
    pictures = batch(side_by_side(bear, fox), side_by_side(fox, cat), side_by_side(fox, bear))
    images, table, text = pack.run("RelateScorePictures", images=pictures, scene=scene, prompt=PROMPT, **world)
    assert torch.equal(images[0], pictures[2]) and torch.equal(images[2], pictures[0])
    rows = [line.split(" | ") for line in text.splitlines()[2:]]
    assert [row[1] for row in rows] == ["3", "2", "1"]
    assert [row[-1].strip(" |") for row in rows] == ["no", "no", "yes"]
    assert table.shape[0] == 1 and table.shape[-1] == 3 and 0 <= float(table.min()) and float(table.max()) <= 1


def test_the_order_of_the_batch_changes_nothing(pack, scene, creatures, world):
    pictures = batch(
        side_by_side(creatures["bear"], creatures["fox"]),
        side_by_side(creatures["fox"], creatures["bear"]),
        side_by_side(creatures["fox"], creatures["cat"]),
    )
    first, *_ = pack.run("RelateScorePictures", images=pictures, scene=scene, prompt=PROMPT, **world)
    second, *_ = pack.run("RelateScorePictures", images=pictures.flip(0), scene=scene, prompt=PROMPT, **world)
    assert torch.equal(first, second)


def test_the_relation_is_scored_with_the_words_between_the_names(pack, scene, creatures, world, caplog):
    pictures = batch(side_by_side(creatures["fox"], creatures["bear"]))
    words = {
        prompt: pack.run("RelateScorePictures", images=pictures, scene=scene, prompt=prompt, **world)[2]
        for prompt in (PROMPT, PROMPT.replace("hugging", "riding"), "two animals")
    }
    relation = {prompt: text.splitlines()[2].split(" | ")[2] for prompt, text in words.items()}
    assert relation[PROMPT] != relation[PROMPT.replace("hugging", "riding")]
    assert relation["two animals"] == "-"  # names nobody
    assert caplog.text.count("Score Pictures: the prompt says no relation") == 1


def test_clips_that_do_not_belong_together_score_identity_alone(pack, scene, creatures, world, tiny_sdxl, caplog):
    pictures = batch(side_by_side(creatures["fox"], creatures["bear"]))
    mixed = {"clip": tiny_sdxl.clip, "clip_vision": world["clip_vision"]}
    _, _, text = pack.run("RelateScorePictures", images=pictures, scene=scene, prompt=PROMPT, **mixed)
    cells = text.splitlines()[2].split(" | ")
    assert cells[2] == "-" and float(cells[3]) > 0
    assert "no text encoder that belongs with this CLIP vision" in caplog.text


@pytest.mark.parametrize("size, channels", [((96, 64), 3), ((33, 57), 4)])
def test_any_size_and_an_alpha_channel(pack, studio, world, size, channels):
    one = studio.scene({"image": photograph(40, 50), "name": "corgi", "box": (0.0, 0.0, 1.0, 1.0)})
    pictures = photograph(*size, channels=channels, batch=2)
    images, _, text = pack.run("RelateScorePictures", images=pictures, scene=one, prompt="a corgi is running", **world)
    assert images.shape == pictures.shape and len(text.splitlines()) == 4


def test_a_mask_leaves_the_background_of_a_photograph_out(pack, studio, creatures, world):
    fox = creatures["fox"]
    mask = torch.zeros(fox.shape[:3])
    mask[:, 40:-10, 60:-60] = 1
    pictures = batch(fox)
    scores = [
        pack.run(
            "RelateScorePictures",
            images=pictures,
            prompt="a fox is running",
            **world,
            scene=studio.scene({"image": fox, "name": "fox", "box": (0.0, 0.0, 1.0, 1.0), **extra}),
        )[2]
        for extra in ({}, {"mask": mask})
    ]
    assert scores[0] != scores[1]
    assert float(scores[0].splitlines()[2].split(" | ")[3]) == pytest.approx(100, abs=5)  # nearly its own photograph


@pytest.fixture(scope="module")
def scoring(pack):
    return pack.module("nodes.pipelines.score_pictures")


def colours(pictures):
    """An encoder that sees the mean colour alone."""
    return torch.stack([picture.mean(dim=(1, 2)) for picture in pictures])


def filled(red, green, blue, width=4):
    return torch.tensor([red, green, blue]).expand(1, 4, width, 3)


def test_scores_are_cosines_with_the_words_and_of_each_box_with_its_own_photographs(scoring, studio):
    red, green, dark = filled(1.0, 0.0, 0.0), filled(0.0, 1.0, 0.0), filled(0.5, 0.0, 0.5)
    two_views = torch.cat((red, dark))  # their directions are averaged, not their colours: (1 + 0.7071, 0, 0.7071)
    scene = studio.scene(
        {"image": two_views, "name": "fox", "box": (0.0, 0.0, 0.5, 1.0)},
        {"image": green, "name": "bear", "box": (0.5, 0.0, 1.0, 1.0)},
    )
    pictures = torch.cat((torch.cat((green, red), dim=2), torch.cat((red, green), dim=2)))

    def texts(words, width):
        assert (words, width) == ([PROMPT, "hugging"], 3)
        return torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])

    first, second = scoring.score_pictures(pictures, scene, PROMPT, colours, texts)
    assert (first.index, first.swapped) == (1, False) and (second.index, second.swapped) == (0, True)
    assert first.subjects == pytest.approx((92.388, 100), abs=1e-2) and second.subjects == pytest.approx((0, 0))
    assert first.identity == pytest.approx(96.194, abs=1e-2)
    assert (first.prompt, first.relation) == pytest.approx((70.711, 0), abs=1e-2)  # half of the picture is red
    (alone, _) = scoring.score_pictures(pictures, scene, PROMPT, colours, lambda *_: None)
    assert alone.prompt is None and alone.relation is None


def test_swapped_is_what_fits_better_by_more_than_the_margin(scoring):
    def two(better):
        return torch.tensor([[70.0, 70.0 + better], [70.0 + better, 70.0]])

    assert not scoring.is_swapped(two(2.0)) and scoring.is_swapped(two(2.5))  # 2 a subject
    assert not scoring.is_swapped(torch.tensor([[-100.0]]))
    six, seven = (100 * torch.eye(count).roll(1, dims=1) for count in (6, 7))  # each stands in the next one's place
    assert scoring.is_swapped(six) and not scoring.is_swapped(seven)  # more are not compared


def test_pictures_are_in_the_order_of_their_ranks_and_the_swapped_ones_last(scoring):
    def order(*pictures):
        scores = [
            scoring.PictureScore(index, None, relation, (identity - 1, identity + 1), swapped)
            for index, (relation, identity, swapped) in enumerate(pictures)
        ]
        return [score.index for score in scoring.in_order(scores)]

    assert order((20.0, 60.0, False), (30.0, 90.0, True), (25.0, 70.0, False)) == [2, 0, 1]
    assert order((20.0, 90.0, False), (30.0, 60.0, False), (21.0, 61.0, False)) == [0, 2, 1]  # equal sums: identity
    assert order((20.0, 60.0, False), (20.0, 60.0, False)) == [0, 1]
    assert order((None, 60.0, False), (-1.0, 60.0, False), (1.0, 60.0, False)) == [2, 0, 1]


def test_a_box_is_cut_to_whole_pixels_at_least_one(scoring, pack):
    box, picture = pack.module("core.scene").Box, torch.arange(32.0).reshape(1, 4, 8)
    assert torch.equal(scoring.cut_box(picture, box(0.25, 0.5, 0.7, 0.8)), picture[:, 2:3, 2:6])
    assert scoring.cut_box(picture, box(0.5, 0.25, 0.501, 0.2501)).tolist() == [[[12.0]]]
    assert scoring.cut_box(picture, box(0.999, 0.999, 1, 1)).tolist() == [[[31.0]]]


def test_a_crop_stands_in_the_middle_of_a_white_square(scoring):
    square = scoring.white_square(torch.zeros(3, 2, 5))
    assert square.shape == (3, 5, 5) and (square[:, 1:3] == 0).all()
    assert (square[:, 0] == 1).all() and (square[:, 3:] == 1).all()
    assert torch.equal(scoring.white_square(torch.zeros(3, 5, 2)), square.mT)


def test_a_scene_without_subjects_is_an_error_that_says_what_to_do(pack, world):
    empty = pack.module("core.scene").Scene()
    with pytest.raises(ValueError, match="expected at least one subject.*Connect a Subject node"):
        pack.run("RelateScorePictures", images=photograph(32, 32), scene=empty, prompt=PROMPT, **world)


def test_it_runs_on_a_server_and_shows_its_table(comfy_server):
    graph = {
        "world": node("RelateMiniworldLoader"),
        "fox": node("RelateMiniworldCreature", creature="fox-red-cape"),
        "subject": node("RelateSubject", image=["fox", 0], name="fox", x0=0.0, y0=0.0, x1=1.0, y1=1.0, weight=1.0),
        "score": node(
            "RelateScorePictures",
            images=["fox", 0],
            scene=["subject", 0],
            prompt="a fox is running",
            clip=["world", 1],
            clip_vision=["world", 3],
        ),
        "table": node("PreviewImage", images=["score", 1]),
        "text": node("PreviewAny", source=["score", 2]),
    }
    run = comfy_server.run(graph)
    assert run.status == "success", run.error
    assert run.outputs["table"]["images"] and "| place | picture |" in run.outputs["text"]["text"][0]
