"""The table of what a relation LoRA on the small Flux learns: cells are files, and what is there is not done again."""

import json

import numpy as np
import pytest

from training.common.cli import TrainingAborted
from training.miniworld.experiments import ablate_flux
from training.miniworld.experiments.ablate_flux import ROWS, Row, ablate, results, table, write_results

FEW = (Row("base alone", None), Row("without KML", ("loss.keypoint_weight=0.0",)), Row("alone", references=False))
SMALL = ("train.steps=1", "train.batch_size=1", "train.warmup_steps=0")


@pytest.fixture
def quick(monkeypatch):
    """One Euler step a picture, and two layouts to look for creatures in."""
    drawn = []

    def generate(world, request, seed, steps=1, **options):
        drawn.append(len(request.references))
        return honest(world, request, seed, steps=1, **options)

    honest = ablate_flux.generate
    monkeypatch.setattr(ablate_flux, "generate", generate)
    monkeypatch.setattr("training.miniworld.experiments.measure_flux.LAYOUTS", 2)
    return drawn


def test_cells_are_learnt_drawn_and_counted_once(quick, tmp_path):
    run = {"pictures": 1, "seeds": (0,), "rows": FEW, "more": SMALL}
    lines = list(ablate(tmp_path, 10.0, **run))
    assert [line.partition(",")[0] for line in lines] == [row.name for row in FEW]
    assert quick == [2, 2, 0]  # the last row draws without references
    assert (tmp_path / "without_KML" / "0" / "run" / "relation.safetensors").is_file()
    assert (tmp_path / "cells" / "base_alone-0.png").is_file()
    assert list(ablate(tmp_path, 10.0, **run)) == [] and len(quick) == 3
    (tmp_path / "cells" / "alone-0.npz").unlink()
    assert len(list(ablate(tmp_path, 10.0, **run))) == 1  # only what is missing, on the relation that is there
    assert len(list(ablate(tmp_path, 0.0, **{**run, "seeds": (0, 1)}))) == 1  # no time: what is missing is said
    with pytest.raises(TrainingAborted, match="found those of others"):
        list(ablate(tmp_path, 10.0, sites="DS", **run))
    found = results(tmp_path, (0,), FEW)
    assert list(found) == [row.name for row in FEW] and found["base alone"]["relation"]["trials"] == 1
    assert table(found).splitlines()[2].startswith("| base alone | ")


def test_the_table_pools_seeds_and_states_each(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "cells").mkdir()
    for seed, share in ((0, 1.0), (1, 0.0)):
        arrays = {}
        for kind in ("there", "found"):
            arrays |= {f"{kind}.relation": np.full(8, share), f"{kind}.distance": rng.random(8)}
            arrays |= {f"{kind}.fused": np.arange(8) < 2 * (1 - share)}
            arrays |= {f"{kind}.{key}": np.ones((8, 2), bool) for key in ("emblem", "shown")}
            arrays |= {f"{kind}.{key}": rng.integers(2, size=(8, 2, 5)) for key in ("right", "differ", "swapped")}
            arrays[f"{kind}.differ"] = np.ones((8, 2, 5), int)
        np.savez(tmp_path / "cells" / f"base_alone-{seed}.npz", **arrays)
    text = write_results(tmp_path)
    assert "| base alone | 50.0 (" in text and "| 100, 0 | 16 |" in text
    assert "| bodies fused | relation, seed by seed |" in text and "| 12.5 (3.5 to 36.0) | 100, 0 |" in text
    pooled = json.loads((tmp_path / "ablation.json").read_text())["base alone"]
    assert pooled["seeds"]["relation"] == [1.0, 0.0] and pooled["fused"]["value"] == 0.125
    assert (tmp_path / "table.md").read_text() == text + "\n"


def test_the_rows_are_those_of_the_facts():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) == 14
    for wanted in ("base alone", "T, rank 20", "QK, rank 4", "DS, rank 4", "without KML", "with the routing loss"):
        assert wanted in names
