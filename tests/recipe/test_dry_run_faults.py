"""`--dry-run` on wrong configs, data sets and models: a clear report each, no traceback, nothing written."""

import shutil

import pytest

import training.finetune as finetune
from tests.recipe.tiny_recipe import write_all, write_config
from tests.recipe.wrong_input import CASES, Workdir
from training.prepare import convert


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole recipe: base, models, triplets in both layouts."""
    root = write_all(tmp_path_factory.mktemp("good"))
    (root / "data").rename(root / "authors")
    convert(root / "authors", root / "data")
    lines = (root / "data" / "triplets.jsonl").read_text().splitlines()
    (root / "data" / "triplets.jsonl").write_text(lines[0])
    return root


@pytest.fixture
def work(good, tmp_path):
    for name in ("base", "models", "data"):
        shutil.copytree(good / name, tmp_path / name)
    write_config(tmp_path / "c.toml", tmp_path)
    return Workdir(tmp_path)


def tree(folder):
    """Every path below a folder, with the contents of files."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_there_are_more_than_fifty():
    assert len(CASES) >= 50


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input_is_reported(name, work, good, monkeypatch, capsys):
    break_it, expected = CASES[name]
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    more = break_it(work, good / "authors") if getattr(break_it, "authors", False) else break_it(work)
    config = work.path / ("absent.toml" if name == "no such config" else "c.toml")
    before = tree(work.path)
    assert finetune.main([str(config), "--dry-run", *(more or [])]) == 2
    report = capsys.readouterr().err
    assert [part for part in expected if part not in report] == [], report
    assert "Traceback" not in report
    assert tree(work.path) == before


def test_faults_of_config_triplets_and_models_are_in_one_report(work, capsys):
    """What the right tables of a wrong config name is looked at all the same."""
    work.entry(boxes=[[9, 19, 48, 86], [48, 28, 91, 86]], names=["fox", "bear"])
    work.cut("base/vae/config.json", 40)
    assert finetune.main([str(work.config), "--dry-run", "--set", "train.lr=inf", "--set", "output.name=a/b"]) == 2
    report = capsys.readouterr().err
    assert report.startswith("5 faults:")
    for part in (
        "train.lr: expected a finite number",
        "output.name: expected a file's name",
        "fox [9, 19, 48, 86]",
        "bear [48, 28, 91, 86]",
        "vae/config.json: not JSON",
    ):
        assert part in report


def test_the_good_one_is_planned(work, capsys):
    assert finetune.main([str(work.config), "--dry-run"]) == 0
    assert "text cross-attentions" in capsys.readouterr().out
