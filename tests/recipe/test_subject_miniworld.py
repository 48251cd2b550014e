"""The miniworld's subject adapter at tiny size: variants train, cells are counted once, a table is written."""

import json

import pytest
import torch

pytest.importorskip("resvg_py")

from core.subject.files import load_subject_adapter
from tests.surface import ROOT
from training.miniworld.experiments import subject, subject_table
from training.miniworld.experiments.subject_training import VARIANTS, adapter_file, opened_gates
from training.miniworld.recipes.classifiers import FILE, Classifiers

SETTINGS = ("train.steps=2", "train.batch_size=2", "samples.every=0", "train.warmup_steps=0")
QUICK = [*(part for one in SETTINGS for part in ("--set", one)), "--pictures", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The shipped models, with classifiers that know nothing yet."""
    from core.checkpoint import save

    folder = tmp_path_factory.mktemp("models")
    for part in (ROOT / "models" / "miniworld").iterdir():
        (folder / part.name).symlink_to(part)
    torch.manual_seed(0)
    save(folder / FILE, Classifiers().state_dict(), {})
    return folder


def test_variants_are_trained_and_counted_and_what_is_done_stays(models, tmp_path, capsys):
    common = ["--models", str(models), "--out", str(tmp_path)]
    variants = ["full", "without the CLS feature"]
    assert subject.main(["train", *common, *QUICK, "--variants", *variants]) == 0
    configs = [load_subject_adapter(adapter_file(tmp_path, variant))[1] for variant in variants]
    assert [config.fused_words for config in configs] == [True, False]
    assert configs[0].base == "miniworld" and configs[0].word_2 is not None
    before = adapter_file(tmp_path, "full").read_bytes()
    assert subject.main(["train", *common, *QUICK, "--variants", "full"]) == 0
    assert adapter_file(tmp_path, "full").read_bytes() == before

    rows = ["renders", "MS-Diffusion branch", *variants, "without the adapter"]
    counting = ["count", *common, "--pictures", "2", "--steps", "1", "--threads", "1", "--rows"]
    assert subject.main([*counting, *rows]) == 0
    said = capsys.readouterr().out
    assert "without the adapter, 2: its adapter is not trained yet" in said
    cells = sorted(path.name for path in (tmp_path / "counted").glob("*.json"))
    assert len(cells) == 8 and (tmp_path / "counted" / "full-2.png").is_file()
    table = (tmp_path / "table.md").read_text()
    assert table.count("\n| ") == 5 and "| two: confusion |" in table
    assert subject.main([*counting, *rows]) == 0  # nothing is drawn again
    assert "renders, 1: {" not in capsys.readouterr().out
    assert subject.main(["count", *common, "--pictures", "2", "--steps", "3", "--rows", "renders"]) == 1
    assert "counted on other models, or with other settings" in capsys.readouterr().err


def test_the_card_has_the_table_that_was_counted():
    cells = json.loads((ROOT / "tests/bench/results/subject_ablation.json").read_text(encoding="utf-8"))
    assert list(cells) == list(subject_table.ROWS) and all(list(counted) == ["1", "2"] for counted in cells.values())
    assert subject_table.table(cells) in (ROOT / "models/miniworld/README.md").read_text(encoding="utf-8")
    shipped = ROOT / "models/miniworld/relate/miniworld_subject.safetensors"
    assert cells["shipped"]["1"]["gates"] == opened_gates(shipped)


def test_the_rows_are_those_of_the_papers_ablation():
    assert set(subject_table.OTHERS) | set(VARIANTS) == set(subject_table.ROWS)
    assert len(VARIANTS) == 9 and VARIANTS["full"] == ()


def test_bad_models_are_one_message(tmp_path, capsys):
    given = ["train", "--models", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), *QUICK]
    assert subject.main(given) == 2
    message = capsys.readouterr().err
    assert "is neither a folder nor a file" in message and "shipped: not trained, for the reason above." in message
