"""The miniworld's detector on renders, its training in small, and the judge made of classifiers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.recipe import tiny_vision
from training.annotation.choose import Candidate, choose, overlap
from training.common.vision import select
from training.evaluation.judge.answers import Answers, CannotAnswer
from training.evaluation.judge.verdicts import judge_pictures
from training.miniworld.experiments import planted_faults
from training.miniworld.experiments.annotator import THRESHOLDS, Finder
from training.miniworld.experiments.planted_faults import FAULTS, HONEST, build, preference, with_fault
from training.miniworld.experiments.yes_no_judge import DIRECTED, open_judge
from training.miniworld.recipes import detector as recipe
from training.miniworld.recipes.detector_network import CELLS, CreatureDetector, decode
from training.miniworld.recipes.find_creatures import load_detector
from training.miniworld.world.relations import PAIRS
from training.miniworld.world.renderer import render
from training.miniworld.world.traits import SPECIES
from training.miniworld.world.triplets import evaluation_plans, write_triplets


@pytest.fixture(scope="module")
def detector():
    return load_detector()


def picture(plan):
    return Image.fromarray(render(plan, 128).image)


def test_a_peak_in_the_maps_is_a_box_where_the_targets_put_it():
    boxes = np.array([(0.1, 0.2, 0.5, 0.8), (0.6, 0.3, 0.9, 0.7)], np.float32)
    heat, frames, places = recipe.targets([[2, 5]], [boxes])
    assert places.sum() == 2 and heat.shape == (1, 8, CELLS, CELLS)
    (found,) = decode(torch.logit(heat, eps=1e-4), frames)
    np.testing.assert_allclose(sorted(box for _, box in found[:2]), boxes, atol=1e-5)


def test_the_loss_falls_and_is_smallest_where_the_maps_are_right():
    heat, frames, places = recipe.targets([[2]], [np.array([(0.1, 0.2, 0.5, 0.8)], np.float32)])
    right = recipe.loss(torch.logit(heat, eps=1e-4), frames, heat, frames, places)
    wrong = recipe.loss(torch.logit(heat.flip(1), eps=1e-4), frames, heat, frames, places)
    assert right < 0.2 < wrong  # the slopes of a bump are never quite right: they are soft labels
    torch.manual_seed(0)
    network, values = CreatureDetector(), []
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    images = torch.rand(1, 3, 128, 128)
    for _ in range(6):
        value = recipe.loss(*network(images), heat, frames, places)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]


def test_the_shipped_detector_finds_creatures_by_name(detector):
    (plan,) = evaluation_plans("standing next to", 1, 5)
    names = [traits.species for traits in plan.cast]
    found = select(detector.detect(picture(plan), names), (128, 128))
    assert sorted(one.name for one in found) == sorted(names)
    assert detector.detect(picture(plan), ["spaceship"]) == []
    assert {one.name for one in detector.detect(picture(plan), [f"little {names[0]}"])} <= {f"little {names[0]}"}


def test_its_file_says_how_often_it_is_right(detector):
    assert 0.5 < detector.accuracy["recall"] <= 1 and detector.accuracy["creatures"] > 300


def test_it_is_as_right_on_new_renders_as_its_file_says(detector):
    again = recipe.validate(detector, seed=7, count=40)
    assert again["recall"] == pytest.approx(detector.accuracy["recall"], abs=0.15)


def test_a_creature_is_one_place_and_no_part_of_another(detector, monkeypatch):
    whole, same, part, rival = (0.2, 0.0, 1.0, 0.9), (0.25, 0.0, 1.0, 0.9), (0.17, 0.3, 0.65, 0.9), (0.0, 0.3, 0.5, 1.0)
    scores = {whole: 1.0, same: 0.9, part: 0.5, rival: 0.07, (0.8, 0.6, 1.0, 1.0): 0.05}
    found = list(scores), list(scores.values()), torch.eye(len(SPECIES))[: len(scores)]
    monkeypatch.setattr(detector, "find", lambda pixels: found)
    creatures = detector.creatures(torch.zeros(1, 3, 128, 128))
    assert [one.box for one in creatures] == [whole, rival]
    assert creatures[0].score_as(SPECIES[0]) == 1.0 and creatures[0].score_as(SPECIES[1]) == 0.5


def test_annotation_finds_a_creature_that_another_one_covers(tmp_path):
    """Its peak is too faint to be a creature for sure, so that it must not be taken for backdrop either."""
    plan = write_triplets(tmp_path, "riding", 10, seed=71, held_out=None)[9]
    names = [traits.species for traits in plan.cast]
    detections = Finder(load_detector()).detect(picture(plan), names)
    boxes = [[Candidate(one.box, one.score) for one in detections if one.name == name] for name in names]
    found = choose(boxes, THRESHOLDS.detection.score)
    assert None not in found
    exact = render(plan, 128).boxes
    assert [overlap(one.box, tuple(box)) > 0.5 for one, box in zip(found, exact)] == [True, True]


def test_the_judge_answers_what_it_knows_and_nothing_else():
    judge = open_judge()
    (plan,) = evaluation_plans("hugging", 1, 5)
    first, second = (traits.species for traits in plan.cast)
    other = next(name for name in SPECIES if name not in (first, second))

    def p(question):
        yes, no = judge.yes_no([picture(plan)], question)
        assert math.exp(yes) + math.exp(no) == pytest.approx(1)
        return math.exp(yes)

    assert p(f"Is the {first} hugging the {second} in this picture?") > 0.5
    assert p(f"Is the {first} riding the {second} in this picture?") < 0.5
    assert p(f"Do the {first} and the {second} touch each other in this picture?") > 0.5
    assert p(f"Is there a {first} in this picture?") > p(f"Is there a {other} in this picture?")
    with pytest.raises(CannotAnswer):
        judge.yes_no([picture(plan)], "Is it raining?")


def test_the_judge_sees_who_is_on_top_where_one_creature_covers_the_other():
    """Covered ones are found faintly, and taken for another species when they are looked at alone."""
    judge = open_judge()
    for plan in evaluation_plans("riding", 16, 5):
        rider, mount = (traits.species for traits in plan.cast)
        answers = [
            judge.yes_no([picture(plan)], f"Is the {agent} riding the {other} in this picture?")
            for agent, other in ((rider, mount), (mount, rider))
            if agent != other
        ]
        assert [yes > no for yes, no in answers] == [True, False][: len(answers)], (rider, mount)


def test_every_fault_changes_the_render_and_only_directed_relations_are_reversed():
    rng = np.random.default_rng(0)
    for relation in ("riding", "hugging"):
        (plan,) = evaluation_plans(relation, 1, 3)
        honest = render(plan, 64).image
        for fault in FAULTS:
            drawn = with_fault(plan, fault, rng)
            if fault == "reversed" and relation not in DIRECTED:
                assert drawn is None
            else:
                assert not np.array_equal(render(drawn, 64).image, honest), fault
    (plan,) = evaluation_plans("hugging", 1, 3)
    assert with_fault(plan, "swapped", rng).cast == plan.cast[::-1]
    assert len(with_fault(plan, "missing", rng).cast) == 1


def test_preferences_by_hand():
    assert preference([1, 2, 3], [0, 2, 5], True).value == pytest.approx((1 + 0.5 + 0) / 3)
    assert preference([1, 2, 3], [0, 2, 5], False).value == pytest.approx((0 + 0.5 + 1) / 3)
    for higher_is_better in (True, False):
        assert preference([1.0, 0.0], [None, None], higher_is_better).value == 1  # what cannot be measured has lost
        assert preference([None], [0.0], higher_is_better).value == 0
    assert preference([None], [None], True) is None


def test_planted_faults_end_to_end(tmp_path, capsys):
    rows = planted_faults.run(tmp_path, 4)
    assert set(rows) == {HONEST, *FAULTS} and len(rows[HONEST]) == 4
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "whole picture" in table and "sensitivity" in table and "Detector on renders" in table
    assert Image.open(tmp_path / "sheet.png").width > 300


def test_planted_faults_with_a_dino_of_photographs(tmp_path, capsys):
    folder = tmp_path / "dino"
    planted_faults.run(tmp_path / "out", 2, dino=str(tiny_vision.dinov2(folder)))
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert f"| *DINO ({folder}), whole picture* |" in table and "local encoder" not in table
    assert planted_faults.main(["--out", str(tmp_path / "no"), "--dino", str(tmp_path / "absent")]) == 2
    assert "--dino" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_a_reversed_relation_is_a_reversal(tmp_path):
    entries = build(tmp_path, len(PAIRS), 11)
    answers = Answers(open_judge())
    both = [(one, other) for one, other in zip(entries[HONEST], entries["reversed"]) if other]
    honest, wrong = (
        judge_pictures(list(kind), [one.relation for one in kind], answers, mirror=False) for kind in zip(*both)
    )
    assert len(both) == len(DIRECTED)
    # The detector names some creatures wrongly, so honest pictures are not all free of it.
    assert sum(one.reversed for one in wrong) > sum(one.reversed for one in honest)
