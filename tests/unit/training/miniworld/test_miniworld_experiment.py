"""The laboratory's bookkeeping: boxes cut apart, intervals, sections of the card, tables from finished cells."""

import json

import numpy as np
import pytest
import torch

from training.common.stats import mcnemar
from training.miniworld.experiments import ablation_report, ablation_rows, failures
from training.miniworld.experiments import keypoint_probe as joints
from training.miniworld.experiments.generate import apart, copies
from training.miniworld.experiments.measure import Measurement, Predictions, Share
from training.miniworld.experiments.report import write_section, write_trained
from training.miniworld.recipes.labelled_scenes import LOOKS


def verdicts(pictures, relation, right=True, swapped=False, shown=True):
    shape = (pictures, 2, len(LOOKS))
    return Predictions(
        np.full(pictures, relation),
        np.full(shape, right),
        np.ones(shape, bool),
        np.full(shape, swapped),
        np.full(pictures, 0.25),
        np.full(pictures, not relation),
        np.full((pictures, 2), right),
        np.full((pictures, 2), shown),
    )


def test_boxes_are_cut_where_they_overlap_less():
    left, right = torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.5, 0.2, 0.9, 0.8]])
    cut = apart(torch.stack((left, right)))
    torch.testing.assert_close(cut, torch.tensor([[0.1, 0.2, 0.55, 0.8], [0.55, 0.2, 0.9, 0.8]]))
    torch.testing.assert_close(apart(torch.stack((right, left))), cut.flip(0))


def test_boxes_one_above_the_other_are_cut_across():
    boxes = torch.tensor([[0.2, 0.1, 0.8, 0.6], [0.1, 0.5, 0.9, 0.9]])
    torch.testing.assert_close(apart(boxes), torch.tensor([[0.2, 0.1, 0.8, 0.55], [0.1, 0.55, 0.9, 0.9]]))


def test_separate_boxes_stay():
    boxes = torch.tensor([[0.0, 0.0, 0.4, 1.0], [0.5, 0.0, 1.0, 1.0]])
    assert torch.equal(apart(boxes), boxes)


def test_the_bootstrap_resamples_pictures_not_traits():
    """Traits that always fail together make the interval of as many coin flips as there are pictures."""
    together = np.repeat([0.0, 10.0], 50)
    share = Share.of_parts(together, np.full(100, 10.0))
    assert share.value == 0.5 and 0.38 < share.low < 0.43 and 0.57 < share.high < 0.62
    assert Share.of_parts(np.full(20, 10.0), np.full(20, 10.0)) == Share(1.0, 1.0, 1.0, 20)
    with pytest.raises(ValueError, match="got nothing"):
        Share.of_parts(np.zeros(3), np.zeros(3))


def test_joined_verdicts_are_counted_over_all_pictures():
    score = Measurement.of(Predictions.joined([verdicts(30, True), verdicts(10, False, right=False, swapped=True)]))
    assert score.relation.value == score.identity.value == score.whole.value == 0.75
    assert score.confusion.value == 0.25 and score.keypoints.value == 0.25 and score.relation.trials == 40
    assert score.fused.value == 0.25 and score.emblem.value == 0.75


def test_an_emblem_that_no_picture_should_show_is_not_counted():
    score = Measurement.of(verdicts(10, True, shown=False))
    assert score.emblem is None and "emblem" not in score.table() and "fused" in score.table()


def test_a_section_of_the_card_is_replaced_and_nothing_else(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- numbers -->\nold\n<!-- /numbers -->\nafter\n", encoding="utf-8")
    write_section(card, "numbers", "new")
    write_section(card, "numbers", "newer")
    assert card.read_text(encoding="utf-8") == "before\n<!-- numbers -->\nnewer\n<!-- /numbers -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- others -->"):
        write_section(card, "others", "new")


@pytest.mark.parametrize("machine", [None, "one GPU, in bfloat16"])
def test_the_card_says_what_was_trained_on_which_machine(tmp_path, machine):
    run = {"steps": 1500, "samples": 36000, "minutes": 2.5}
    corpus = {"scenes": 32000, "identities": 5000, "portraits": 2, "seed": 0}
    facts = {"corpus": corpus, **({"machine": machine} if machine else {}), "unet": run}
    (tmp_path / "training.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux/training.json").write_text(json.dumps({"base": run}), encoding="utf-8")
    card = tmp_path / "README.md"
    card.write_text("<!-- trained -->\n<!-- /trained -->\n", encoding="utf-8")
    write_trained(card)
    text = card.read_text(encoding="utf-8")
    assert "| unet | 1,500 | 36,000 | 2.5 |" in text and "| small Flux, DreamO: base | 1,500 | 36,000 | 2.5 |" in text
    assert "32,000 scenes of 5,000 identities" in text
    assert f"Minutes of {machine or 'one core of a CPU, in float32'}." in text


def test_finished_cells_become_tables_and_missing_ones_do_not(tmp_path):
    (tmp_path / "cells").mkdir()
    for seed, relation in ((0, True), (1, False)):
        np.savez(tmp_path / "cells" / f"full-{seed}.npz", **vars(verdicts(20, relation)))
    found = ablation_report.results(tmp_path)
    assert list(found) == ["full"] and found["full"]["seeds"] == [1.0, 0.0]
    assert found["full"]["relation"]["value"] == 0.5 and found["full"]["relation"]["trials"] == 40
    text = ablation_report.tables(found)
    assert "| full | 50.0 (" in text and text.count("\n") == 2


def test_rows_are_tested_against_the_one_they_change_on_the_seeds_of_both(tmp_path):
    (tmp_path / "cells").mkdir()
    cells = {
        ("full", 0): verdicts(20, True),
        ("without_KML", 0): verdicts(20, False),
        ("without_KML", 1): verdicts(20, True),
        ("base_alone", 0): verdicts(20, True, right=False),
        ("the_renderer's_own", 0): verdicts(20, True),
    }
    for (row, seed), counts in cells.items():
        np.savez(tmp_path / "cells" / f"{row}-{seed}.npz", **vars(counts))
    found = ablation_report.results(tmp_path)
    assert found["without KML"]["against"] == {
        "row": "full",
        "relation": mcnemar(0, 20),
        "identity": 1.0,
        "keypoints": 1.0,
    }
    assert found["full"]["against"]["row"] == "base alone" and found["full"]["against"]["identity"] < 0.001
    assert "against" not in found["base alone"] and "against" not in found["the renderer's own"]
    lines = ablation_report.tables(found).splitlines()
    assert [line.split("|")[-3].strip() for line in lines if line.startswith(("| full", "| without KML"))] == [
        "1.000 / < 0.001 / 1.000",
        "< 0.001 / 1.000 / 1.000",
    ]


def test_the_worst_pictures_of_each_kind_are_shown_once():
    found = verdicts(6, True)
    found.fused[[1, 4]] = True
    found.relation[[1, 2, 4]] = False
    found.swapped[3] = True
    found.swapped[5, 0, :2] = True
    found.right[3] = False
    found.right[0, :, :4] = False
    shown = [(failure.kind, failure.many, failure.index) for failure in failures.worst(found, each=1)]
    assert shown == [
        ("another relation", 1, 2),
        ("bodies fused", 2, 1),
        ("the other one's looks", 2, 3),
        ("wrong looks", 2, 0),
    ]


def test_recorded_rows_of_the_same_weights_stay_and_others_go(tmp_path, monkeypatch):
    card, out = tmp_path / "README.md", tmp_path / "out"
    card.write_text("<!-- ablation -->\n<!-- /ablation -->\n", encoding="utf-8")

    def counted(row, seeds, pictures):
        (out / "cells").mkdir(parents=True, exist_ok=True)
        for old in (out / "cells").iterdir():
            old.unlink()
        for seed in range(seeds):
            np.savez(out / "cells" / f"{row}-{seed}.npz", **vars(verdicts(pictures, True)))
        return ablation_report.write_results(out, card)

    assert ablation_report.recorded(card) == {}
    counted("full", 3, 20)
    counted("without_KML", 3, 20)
    assert list(ablation_report.recorded(card)) == ["full", "without KML"]
    kept = counted("full", 1, 20)
    assert kept["full"]["relation"]["trials"] == 60, "one seed of three does not replace all three"
    assert "| without KML |" in card.read_text(
        encoding="utf-8"
    ) and ablation_rows.JOINTS not in ablation_report.recorded(card)
    distances = dict.fromkeys(joints.DISTANCES, 1.5)
    (out / ablation_rows.JOINTS).write_text(json.dumps(distances), encoding="utf-8")
    counted("full", 1, 20)
    (out / ablation_rows.JOINTS).unlink()
    counted("full", 1, 20)
    counted("base_alone", 1, 20)
    assert ablation_report.complete_rows(card) == ["full", "without KML", ablation_rows.JOINTS], (
        "a row of one seed is not complete"
    )
    assert ablation_report.recorded(card)[ablation_rows.JOINTS] == distances and "| 1.50 |" in card.read_text(
        encoding="utf-8"
    )
    monkeypatch.setattr(ablation_report, "base_digest", lambda: "other weights")
    assert ablation_report.recorded(card) == {} and list(counted("base_alone", 1, 5)) == ["base alone"]


def test_every_row_has_its_recipe_and_a_name_of_its_own():
    assert len({row.name for row in ablation_rows.ROWS}) == len(ablation_rows.ROWS)
    assert {row.recipe for row in ablation_rows.ROWS} == {"", ablation_rows.INVERSION, *ablation_rows.VARIANTS}


def test_copies_are_made_where_the_models_are():
    """`measure --device cuda` has its pictures on the CPU and its models elsewhere."""

    class World:
        device = torch.device("meta")

        def to_latents(self, images):
            assert images.device == self.device
            return images

        def to_images(self, latents):
            return torch.zeros(latents.shape)

    assert copies(World(), torch.ones(20, 3, 8, 8)).shape == (20, 3, 8, 8)
