"""The model card's tables that people wrote are those of the files of results, to the digit."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench import blind_reader
from training.miniworld.experiments import ablation_report, ablation_rows, keypoint_probe
from training.miniworld.experiments.measure import Share
from training.miniworld.experiments.report import SIDE_BY_SIDE
from training.miniworld.world.relations import SEEN
from training.miniworld.world.renderer import render
from training.miniworld.world.triplets import plans_in_turn

ROOT = Path(__file__).parents[4]
CARD = (ROOT / "models/miniworld/README.md").read_text(encoding="utf-8").splitlines()
RESULTS = ROOT / "tests/bench/results"


def table_below(heading):
    """Rows of the card's table with this head, as lists of cells."""
    first = CARD.index(heading) + 2
    rows = [line for line in CARD[first : CARD.index("", first)]]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def results(name):
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_what_a_flux_relation_learns():
    heading = (
        "| learnt | *hugging* is seen | seed by seed | bodies fused | fur right, wherever | traits right, wherever"
    )
    rows = [
        [
            name,
            str(Share(**row["relation"])),
            ", ".join(f"{100 * share:.0f}" for share in row["seeds"]["relation"]),
            f"{100 * row['fused']['value']:.1f}",
            str(Share(**row["fur_found"])),
            str(Share(**row["traits_found"])),
            str(row["relation"]["trials"]),
        ]
        for name, row in results("flux_ablation.json").items()
    ]
    assert table_below(f"{heading} | pictures |") == rows


def test_the_ablation_is_of_the_shipped_weights_and_its_tables_are_its_files():
    rows = ablation_report.recorded(ROOT / "models/miniworld/README.md")
    distances = rows.pop(ablation_rows.JOINTS)
    assert {"full", "base alone"} <= rows.keys()
    expected = f"{ablation_report.tables(rows)}\n\n{keypoint_probe.table(distances)}".splitlines()
    assert CARD[CARD.index("<!-- ablation -->") + 1 : CARD.index("<!-- /ablation -->")] == expected


def test_what_annotation_costs_a_relation():
    rows = [
        [
            str(Share(**row["relation"])),
            ", ".join(f"{100 * share:.0f}" for share in row["seeds"]),
            str(Share(**row["fused"])),
            f"{100 * row['identity']['value']:.1f}",
        ]
        for row in results("annotated_relation.json").values()
    ]
    cells = table_below("| from annotate | *hugging* is seen | of each training | bodies fused | traits right |")
    assert [each[1:] for each in cells] == rows


def test_what_the_small_flux_gains_by_seeing_more():
    text = (ROOT / "docs/miniworld.md").read_text(encoding="utf-8")
    columns = ("species", "other_species", "fur", "traits", "relation")
    cells = [
        [f"{int(samples):,}", *(str(Share(**row[name])) for name in columns)]
        for samples, row in results("flux_curve.json")["points"].items()
    ]
    cells[1][0] += " (shipped)"
    assert "\n".join(f"| {' | '.join(row)} |" for row in cells) in text
    points = results("flux_curve.json")["points"].items()
    species = [100 * row["species"]["value"] for _, row in points]
    slope, start = np.polyfit(np.log2([int(samples) for samples, _ in points]), species, 1)
    assert f"{slope:.1f} points a doubling, reaches 80 % at {2 ** ((80 - start) / slope) / 1e6:.1f} million" in text
    shipped = json.loads((ROOT / "models/miniworld/flux/measurements.json").read_text(encoding="utf-8"))
    again = results("flux_curve.json")["points"]["95808"]
    first = shipped["with routing, steering soft"]
    assert first == {name: again[name] for name in first}, "the shipped weights, counted twice"


@pytest.fixture(scope="module")
def plans():
    plans = plans_in_turn(SEEN, SIDE_BY_SIDE, 0)
    return [plans[index] for index in blind_reader.shuffled(plans)]


@pytest.mark.parametrize("name, right", [("samples", 34), ("renders", 36), ("samples_2", 35), ("renders_2", 36)])
def test_what_blind_readers_saw(plans, name, right, monkeypatch):
    monkeypatch.setattr(blind_reader, "render", lambda plan: render(plan, 64))
    text = blind_reader.count(plans, (RESULTS / f"blind_reader/{name}.txt").read_text(encoding="utf-8"))
    *wrong, last = text.splitlines()
    assert last == f"{right} of 36 right in both species and the relation" and len(wrong) == 36 - right


def test_a_blind_answer_is_from_left_to_right_and_a_missing_one_is_wrong(plans):
    for plan in plans[:3]:
        left, right, relation = blind_reader.answer_of(plan)
        boxes = dict(zip((traits.species for traits in plan.cast), render(plan).boxes))
        assert boxes[left][[0, 2]].sum() < boxes[right][[0, 2]].sum() and relation == plan.relation
    answer = "; ".join(blind_reader.answer_of(plans[0])).upper()
    lines = blind_reader.count(plans[:2], f"1; {answer}\n").splitlines()
    assert lines[0].startswith("2: no answer; asked for ")
    assert lines[1] == "1 of 2 right in both species and the relation"
